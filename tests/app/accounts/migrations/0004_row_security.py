"""Row security, as Supabase has it: the role `authenticated` sees the rows of the user whom the token's claims name.
The role exists there; elsewhere a superuser makes it once: CREATE ROLE authenticated; GRANT authenticated TO app.

Supabase gives it, and `anon`, every right to each new table. So first the tables are closed, Django's own too: those rights are
taken back, and row security is turned on, by which nobody but the owner sees or changes a row that no policy names. The second
holds where somebody grants all tables again; but not against TRUNCATE and TRIGGER, and not through a view that the owner makes
without security_invoker. A later table has to be closed as well."""

from django.core.exceptions import ImproperlyConfigured
from django.db import migrations


def close(apps, schema_editor):
    tables = [model._meta.db_table for model in apps.get_models(include_auto_created=True)] + ["django_migrations"]
    quote, connection = schema_editor.quote_name, schema_editor.connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname IN ('authenticated', 'anon')")
        roles = ", ".join(role for (role,) in cursor)
        if "authenticated" not in roles:
            raise ImproperlyConfigured("There is no role `authenticated`. A superuser makes it: see the head of this migration.")
        for table in tables:
            for sequence in connection.introspection.get_sequences(cursor, table):
                cursor.execute(f"REVOKE ALL ON SEQUENCE {quote(sequence['name'])} FROM {roles}")
            cursor.execute(f"REVOKE ALL ON {quote(table)} FROM {roles}")
            cursor.execute(f"ALTER TABLE {quote(table)} ENABLE ROW LEVEL SECURITY")


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
        # There is no way back: without policies, what was granted before would be everyone's right to everything.
        migrations.RunPython(close, migrations.RunPython.noop),
        *(
            migrations.RunSQL(f"CREATE POLICY seen ON {table} FOR SELECT TO authenticated USING ({rows})", f"DROP POLICY seen ON {table}")
            for table, rows in SEEN.items()
        ),
        migrations.RunSQL(f"CREATE POLICY edited ON user_profile FOR UPDATE TO authenticated USING ({OWN})", "DROP POLICY edited ON user_profile"),
        migrations.RunSQL(
            f"GRANT SELECT ON {', '.join(SEEN)} TO authenticated; GRANT UPDATE ({EDITABLE}) ON user_profile TO authenticated",
            f"REVOKE ALL ON {', '.join(SEEN)} FROM authenticated",
        ),
    ]
