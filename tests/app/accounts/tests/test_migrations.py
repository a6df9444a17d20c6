"""The way there and back: migrations, as a database owner who is no superuser, and Django's own tools beside them."""

import io
import json
import tempfile

from django.core.management import call_command
from django.db import connection, transaction
from django.db.utils import InternalError
from django.test import TestCase

from accounts.models import SubscriptionPlan, UserProfile, UserRole, UserSubscription
from accounts.tests.support import FROM_DATABASE, AppTestCase, answer, explain, migrate, sql


def columns(table):
    return {column.name for column in connection.introspection.get_table_description(connection.cursor(), table)}


class Migrations(AppTestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(migrate)

    def document(self):
        return json.loads(sql("SELECT get_profile(%s)", self.ada.supabase_user_id)[0][0])

    def test_as_an_ordinary_role(self):
        self.assertEqual(sql("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user"), [(False, False)])
        self.assertEqual(sql("SELECT pg_get_userbyid(extowner) = current_user FROM pg_extension WHERE extname = 'profile_cache'"), [(True,)])

    def test_models_and_migrations_agree(self):
        """The four columns of the cache are in no model, and nothing asks for them."""
        call_command("makemigrations", check=True, dry_run=True, verbosity=0)
        call_command("migrate", check=True, verbosity=0)
        call_command("check", fail_level="WARNING", stdout=io.StringIO())
        self.assertEqual(
            columns("user_profile") - {field.column for field in UserProfile._meta.local_fields},
            {"cached_profile", "cached_profile_valid_until", "cached_profile_epoch", "profile_cache_updated_at"},
        )
        self.assertEqual(UserProfile.objects.raw("SELECT * FROM user_profile WHERE id = %s", [self.ada.id])[0], self.ada)

    def test_back_to_the_app_as_it_was(self):
        """Nothing is left behind, data stays, and the way forth can be gone again."""
        before = [answer("as_it_was", user.supabase_user_id) for user in self.users]
        migrate("0001")
        self.assertEqual(sql("SELECT extname FROM pg_extension WHERE extname = 'profile_cache'"), [])
        self.assertEqual(sql("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"), [])
        self.assertFalse({"cached_profile", "cached_profile_epoch"} & columns("user_profile"))
        self.assertEqual(sql("SELECT to_regclass('profile_document')::text"), [(None,)])
        sql("UPDATE user_profile SET company = 'written without the extension'")
        sql("UPDATE user_profile SET company = ''")
        migrate()
        self.assertEqual(explain(self.ada.supabase_user_id), ("view", "not cached"))
        self.assertEqual([self.assert_same_id(user.supabase_user_id) for user in self.users], before)
        self.warm()
        self.assertEqual([self.assert_same_id(user.supabase_user_id) for user in self.users], before)

    def test_what_is_not_the_apps_is_left_alone(self):
        """0004, there and back, beside a table with rights and policies of its own."""
        sql("CREATE TABLE notes (id int); ALTER TABLE notes ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON notes USING (false)")
        self.addCleanup(sql, "DROP TABLE notes")
        notes = "SELECT relrowsecurity, relacl::text FROM pg_class WHERE oid = 'notes'::regclass"
        before = sql(notes)
        for name in ("0003", None):
            migrate(name)
            self.assertEqual(sql(notes), before)

    def test_columns_added_renamed_and_retyped(self):
        """0003, there and back. Before it the document has the old names and types, after it the new ones."""
        UserProfile.objects.filter(id=self.ada.id).update(organization="Analytical Engines", login_count=7)
        migrate("0002")
        document = self.document()
        self.assertEqual((document["company"], document["login_count"]), ("Analytical Engines", 7))
        self.assertFalse({"organization", "pronouns"} & document.keys())
        sql("UPDATE user_profile SET company = 'Engines' WHERE id = %s", self.ada.id)
        self.assertEqual(self.document()["company"], "Engines")
        migrate()
        self.assertFalse("company" in self.document())
        UserProfile.objects.filter(id=self.ada.id).update(login_count=2**40, pronouns="she/her")
        document = self.assert_same_id(self.ada.supabase_user_id, FROM_DATABASE)[2]
        self.assertEqual((document["organization"], document["login_count"], document["pronouns"]), ("Engines", 2**40, "she/her"))
        call_command("profile_cache_refresh")
        self.assertEqual(explain(self.ada.supabase_user_id), ("cache", "fresh"))
        self.assert_same(FROM_DATABASE)

    def test_rows_and_schema_in_one_migration(self):
        """As RunPython followed by AlterField: changed rows leave nothing queued that ALTER TABLE would refuse."""
        with transaction.atomic():
            UserProfile.objects.update(full_name="in a migration")
            UserRole.objects.filter(user=self.bob).delete()
            sql("SELECT profile_cache.detach(drop_columns => false)")
            sql("ALTER TABLE user_profile ALTER full_name TYPE varchar(300)")
            sql("SELECT profile_cache.attach()")
            UserProfile.objects.filter(id=self.ada.id).update(full_name="after attach")
            self.assert_same(FROM_DATABASE)
        self.assert_same(FROM_DATABASE)
        sql("SELECT profile_cache.detach(drop_columns => false)")
        sql("ALTER TABLE user_profile ALTER full_name TYPE varchar(255)")
        sql("SELECT profile_cache.attach()")
        self.assert_same(FROM_DATABASE)

    def test_rows_that_migrations_made(self):
        """Django keeps them as text, and puts them back before each test with serialized_rollback."""
        self.assertEqual(SubscriptionPlan.objects.get(id="free").ai_daily_limit, 10)
        SubscriptionPlan.objects.all().delete()

    test_rows_that_migrations_made_are_there_again = test_rows_that_migrations_made

    def test_notify(self):
        """0005, there and back, by the owner of the database."""
        settings = "SELECT setconfig FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = current_database()"
        self.assertEqual(sql(settings), [(["profile_cache.notify=on"],)])
        migrate("0004")
        self.assertEqual(sql(settings), [])

    def test_flush(self):
        """TRUNCATE of every table, which is also how TransactionTestCase cleans up."""
        call_command("flush", interactive=False, verbosity=0)
        self.assertEqual([answer(variant, self.ada.supabase_user_id)[0] for variant in FROM_DATABASE], [404, 404, 404])

    def test_dumpdata_and_loaddata(self):
        # A fixture has milliseconds only.
        UserProfile.objects.update(created_at="2024-05-01T12:00:00Z", updated_at="2024-05-01T12:00:00.123Z")
        before = [answer("as_it_was", user.supabase_user_id) for user in self.users]
        fixture = io.StringIO()
        call_command("dumpdata", "accounts", stdout=fixture)
        self.assertNotIn("cached_profile", fixture.getvalue())
        file = self.enterContext(tempfile.NamedTemporaryFile("w", suffix=".json"))
        file.write(fixture.getvalue())
        file.flush()
        call_command("flush", interactive=False, verbosity=0)
        call_command("loaddata", file.name, verbosity=0)
        self.assertEqual([self.assert_same_id(user.supabase_user_id, FROM_DATABASE) for user in self.users], before)
        call_command("profile_cache_refresh")
        self.assertEqual({explain(user.supabase_user_id) for user in self.users}, {("cache", "fresh")})

    def test_refresh_profiles_says_what_it_does(self):
        out = io.StringIO()
        sql("SELECT profile_cache.invalidate_all()")
        call_command("profile_cache_refresh", batch_size=1, verbosity=2, stdout=out)
        self.assertIn("documents refreshed: 3 of about 3", out.getvalue())
        self.assertEqual(explain(self.ada.supabase_user_id), ("cache", "fresh"))

    def test_refresh_profiles_passes_warnings_on(self):
        err = io.StringIO()
        call_command("profile_cache_refresh", stderr=err)
        self.assertEqual(err.getvalue(), "")
        sql("ALTER TABLE user_role DISABLE TRIGGER USER")
        self.addCleanup(sql, "SELECT profile_cache.attach()")  # which mends it
        call_command("profile_cache_refresh", stderr=err)
        self.assertIn("trigger", err.getvalue())
        UserRole.objects.all().delete()
        self.assert_same(FROM_DATABASE)


class InATestCase(TestCase):
    """An app's own TestCase rolls everything back: profiles are right in it, and refresh has no place."""

    @classmethod
    def setUpTestData(cls):
        cls.user = UserProfile.objects.create(supabase_user_id="00000000-0000-0000-0000-0000000000aa", email="a@example.com")

    def test_profiles(self):
        plan = SubscriptionPlan.objects.create(id="pro", display_name="Pro", ai_daily_limit=1)
        UserSubscription.objects.create(user=self.user, plan=plan)
        answers = [answer(variant, self.user.supabase_user_id) for variant in FROM_DATABASE]
        self.assertEqual((answers[0][0], answers[0][2]["subscription_plan"]), (200, "pro"))
        self.assertEqual(answers, answers[:1] * 3)

    def test_refresh(self):
        with self.assertRaisesMessage(InternalError, "transaction"), transaction.atomic():
            call_command("profile_cache_refresh")
