"""Migrations there and back, as a role that is no superuser, and on a database that is not PostgreSQL."""

import io

from django.core.management import call_command
from django.db import connection, connections
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter
from django.test import override_settings

from django_profile_cache import get_profile
from django_profile_cache.operations import Attach, Detach, Notify
from tests.support import PackageTestCase, sql

COLUMNS = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'user_profile'::regclass AND attname ~ 'cache' AND NOT attisdropped"
SETTING = "SELECT setconfig FROM pg_db_role_setting JOIN pg_database AS d ON d.oid = setdatabase WHERE datname = current_database()"


class Nobody:
    """A router by which nothing is migrated."""

    def allow_migrate(self, db, app_label, **hints):
        return None if hints.get("profiles") else False


class Operations(PackageTestCase):
    databases = {"default", "other"}

    def setUp(self):
        super().setUp()
        self.addCleanup(call_command, "migrate", verbosity=0)

    def attached(self):
        return sql("SELECT profile = 'user_profile'::regclass::text OR profile = 'public.user_profile' FROM profile_cache.status") == [(True,)]

    def run_operation(self, operation, way="forwards", alias="default"):
        with connections[alias].schema_editor() as editor:
            getattr(operation, f"database_{way}")("tests", editor, ProjectState(), ProjectState())

    def test_there_and_back(self):
        self.assertEqual(sql("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"), [(False,)])
        self.assertEqual((sql(COLUMNS), sql(SETTING)), ([(4,)], [(["profile_cache.notify=on"],)]))
        call_command("migrate", "tests", "0001", verbosity=0)
        self.assertEqual((sql(COLUMNS), sql(SETTING)), ([(0,)], []))
        self.assertEqual(sql("SELECT 1 FROM pg_extension WHERE extname = 'profile_cache'"), [])
        call_command("migrate", verbosity=0)
        self.assertIn('"Ada"', get_profile(self.ada.supabase_user_id))
        self.assertNotIn("secret_note", get_profile(self.ada.supabase_user_id))

    def test_around_a_change_of_type(self):
        """0003, back and there: the columns stay, and what is left is attached."""
        for name in ("0002", "0003"):
            call_command("migrate", "tests", name, verbosity=0)
            self.assertTrue(self.attached())
            self.assertEqual(sql(COLUMNS), [(4,)])
            self.assertNotIn("secret_note", get_profile(self.ada.supabase_user_id))

    def test_twice(self):
        for operation, attached in ((Attach(), True), (Detach(), False), (Notify(), False)):
            for _ in range(2):
                self.run_operation(operation)
                self.assertEqual(self.attached(), attached)
        for operation, attached in ((Detach(), True), (Attach(), False)):
            for _ in range(2):
                self.run_operation(operation, "backwards")
                self.assertEqual(self.attached(), attached)
        self.assertEqual(sql(COLUMNS), [(0,)])  # by Attach's way back

    def test_arguments(self):
        sql("CREATE VIEW mine AS SELECT supabase_user_id, jsonb_build_object('it''s', full_name) AS document FROM user_profile")
        self.addCleanup(sql, "SELECT profile_cache.detach(); DROP VIEW mine; SELECT profile_cache.attach()")
        self.run_operation(Attach(profile="user_profile", key="supabase_user_id", document="mine"))
        self.assertEqual(get_profile(self.ada.supabase_user_id), '{"it\'s": "Ada"}')

    def test_not_where_it_has_no_place(self):
        """Another database, and what a router refuses: unless the hints are for it."""
        for operation in (Attach(), Detach(), Notify()):
            self.run_operation(operation, alias="other")
            self.run_operation(operation, "backwards", "other")
        with override_settings(DATABASE_ROUTERS=["tests.test_operations.Nobody"]):
            self.run_operation(Detach())
            self.assertTrue(self.attached())
            self.run_operation(Detach(hints={"profiles": True}))
            self.assertFalse(self.attached())

    def test_written_down(self):
        """By makemigrations and squashmigrations, and as SQL."""
        for operation in (Attach(exclude=["a"], drop_columns=False), Detach(key="id"), Notify(hints={"a": 1})):
            again = eval(MigrationWriter.serialize(operation)[0], {"django_profile_cache": __import__("django_profile_cache.operations")})
            self.assertEqual(again.__dict__, operation.__dict__)
            self.assertRegex(operation.describe(), "profile_cache")
        out = io.StringIO()
        call_command("sqlmigrate", "tests", "0003", stdout=out)
        self.assertIn("SELECT profile_cache.attach(exclude => '{secret_note}'::name[]);", out.getvalue())
        call_command("sqlmigrate", "tests", "0002", stdout=out, backwards=True)
        self.assertIn("SELECT profile_cache.detach(drop_columns => true);", out.getvalue())
        connection.close()

    def test_models_and_migrations_agree(self):
        call_command("makemigrations", check=True, dry_run=True, verbosity=0)
