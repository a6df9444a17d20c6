"""Row security, as Supabase has it: the role `authenticated` sees the rows of the user whom the token's claims name.
The role exists there; elsewhere a superuser makes it once: CREATE ROLE authenticated; GRANT authenticated TO app.

Supabase gives it, and `anon`, every right to each new table. So first all tables are closed, Django's own too: those rights are
taken back, and row security is turned on, by which nobody but the owner sees or changes a row that no policy names. That holds
even where somebody grants everything again (but for TRUNCATE). A later table has to be closed as well."""

from django.db import migrations


def each_table(change):
    return f"""DO $$
        DECLARE
            roles text := (SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles WHERE rolname IN ('authenticated', 'anon'));
            relation record;
        BEGIN
            IF to_regrole('authenticated') IS NULL THEN
                RAISE undefined_object USING MESSAGE = 'role "authenticated" does not exist',
                    HINT = format('As a superuser: CREATE ROLE authenticated; GRANT authenticated TO %I.', current_user);
            END IF;
            FOR relation IN
                SELECT c.oid::regclass AS name, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = current_schema() AND pg_has_role(c.relowner, 'USAGE')
            LOOP
                IF relation.relkind IN ('r', 'p', 'v', 'm', 'S') THEN
                    EXECUTE format('REVOKE ALL ON %s FROM %s', relation.name, roles);
                END IF;
                IF relation.relkind IN ('r', 'p') THEN
                    EXECUTE format('ALTER TABLE %s {change} ROW LEVEL SECURITY', relation.name);
                END IF;
            END LOOP;
        END $$"""


OWN = "supabase_user_id = (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid"
OF_OWN = "user_id IN (SELECT id FROM user_profile)"  # of which the policy above it shows one
SEEN = {"user_profile": OWN, "user_subscription": OF_OWN, "user_role": OF_OWN, "subscription_plan": "true", "role": "true"}

# serializers.EDITABLE as it was then, and what save() adds.
EDITABLE = "full_name, avatar_url, phone, organization, pronouns, job_title, timezone, language, onboarding_completed, preferences, updated_at"


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_pronouns_organization_login_count"),
        # Only tables that are there can be closed.
        ("admin", "0003_logentry_add_action_flag_choices"), ("auth", "0012_alter_user_first_name_max_length"), ("sessions", "0001_initial"),
    ]  # fmt: skip

    operations = [
        # The way back gives no right again: without policies it would be everyone's right to everything.
        migrations.RunSQL(each_table("ENABLE"), each_table("DISABLE")),
        *(
            migrations.RunSQL(
                # Once more: without it the policy would be there, and say nothing.
                f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON {table} FOR SELECT TO authenticated USING ({rows})",
                f"DROP POLICY seen ON {table}",
            )
            for table, rows in SEEN.items()
        ),
        migrations.RunSQL(f"CREATE POLICY edited ON user_profile FOR UPDATE TO authenticated USING ({OWN})", "DROP POLICY edited ON user_profile"),
        migrations.RunSQL(
            f"GRANT SELECT ON {', '.join(SEEN)} TO authenticated; GRANT UPDATE ({EDITABLE}) ON user_profile TO authenticated",
            migrations.RunSQL.noop,
        ),
    ]
