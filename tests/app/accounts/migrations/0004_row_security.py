"""Row security, as Supabase has it: the role `authenticated` sees the rows of the user whom the token's claims name.
The role exists there; elsewhere a superuser makes it once: CREATE ROLE authenticated; GRANT authenticated TO app."""

from django.db import migrations

TABLES = "user_profile, user_subscription, user_role, subscription_plan, role"
MEMBERS = ("user_subscription", "user_role", "user_session", "subscription_history")

POLICIES = [
    """CREATE POLICY own ON user_profile TO authenticated USING (
        supabase_user_id = (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid)""",
    *(f"CREATE POLICY own ON {table} TO authenticated USING (user_id IN (SELECT id FROM user_profile))" for table in MEMBERS),
]


class Migration(migrations.Migration):
    dependencies = [("accounts", "0003_pronouns_organization_login_count")]

    operations = [
        migrations.RunSQL(POLICIES, [f"DROP POLICY own ON {table}" for table in ("user_profile", *MEMBERS)]),
        *(
            migrations.RunSQL(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY", f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
            for table in ("user_profile", *MEMBERS)
        ),
        migrations.RunSQL(
            f"GRANT SELECT ON {TABLES} TO authenticated; GRANT UPDATE ON user_profile TO authenticated",
            f"REVOKE SELECT ON {TABLES} FROM authenticated; REVOKE UPDATE ON user_profile FROM authenticated",
        ),
    ]
