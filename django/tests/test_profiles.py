"""get_profile, get_profiles, the refresh command, and the system check."""

import datetime
import io
import json
import uuid

from django.core.checks import Tags, run_checks
from django.core.management import call_command
from django.db import connection, transaction
from django.db.utils import InternalError
from django.test import override_settings

from django_profile_cache import get_profile, get_profiles
from tests.support import PackageTestCase, sql

NOBODY = uuid.UUID(int=0)


class Profiles(PackageTestCase):
    def test_text(self):
        text = get_profile(self.ada.supabase_user_id)
        self.assertIsInstance(text, str)
        self.assertEqual(json.loads(text)["full_name"], "Ada")
        self.assertEqual(get_profile(str(self.ada.supabase_user_id), using="default"), text)
        self.assertIsNone(get_profile(NOBODY))

    def test_many(self):
        """By one query, under the ids that were given, in their order."""
        ids = [self.eve.supabase_user_id, NOBODY, str(self.ada.supabase_user_id)]
        with self.assertNumQueries(1):
            found = get_profiles(id for id in ids)
        self.assertEqual(list(found), ids)
        self.assertEqual(list(found.values()), [get_profile(id) for id in ids])
        self.assertEqual(get_profiles([]), {})


class Refresh(PackageTestCase):
    def test_what_it_says(self):
        out, err = io.StringIO(), io.StringIO()
        sql("SELECT profile_cache.invalidate_all()")
        call_command("profile_cache_refresh", batch_size=1, verbosity=2, stdout=out, stderr=err, database="default")
        self.assertIn("documents refreshed: 3 of about 3", out.getvalue())
        self.assertEqual(err.getvalue(), "")
        self.assertEqual(sql("SELECT cached, stale FROM profile_cache.status"), [(3, 0)])
        self.assertFalse(connection.connection._notice_handlers)

    def test_warnings(self):
        sql("ALTER TABLE user_subscription DISABLE TRIGGER USER")
        err = io.StringIO()
        call_command("profile_cache_refresh", stderr=err)
        self.assertIn("triggers are missing", err.getvalue())

    def test_in_a_transaction(self):
        with self.assertRaisesMessage(InternalError, "transaction"), transaction.atomic():
            call_command("profile_cache_refresh")


class Checks(PackageTestCase):
    databases = {"default", "other"}

    def found(self, databases=("default",)):
        return [finding.id.removeprefix("profile_cache.") for finding in run_checks(tags=[Tags.database], databases=databases)]

    def test_all_is_well(self):
        self.assertEqual(self.found(), [])

    def test_only_where_it_is_asked_for(self):
        self.assertEqual(self.found(["other"]), [])
        with override_settings(PROFILE_CACHE_DATABASES=[]):
            call_command("migrate", "tests", "0001", verbosity=0)
            self.addCleanup(call_command, "migrate", verbosity=0)
            self.assertEqual(self.found(), [])
        self.assertEqual(self.found(), ["W002"])
        with override_settings(PROFILE_CACHE_DATABASES=["other"]):
            self.assertEqual(self.found(["other"]), ["W001"])

    def test_not_attached(self):
        sql("SELECT profile_cache.detach()")
        self.assertEqual(self.found(), ["W004"])

    def test_triggers(self):
        sql("ALTER TABLE user_subscription DISABLE TRIGGER USER")
        self.assertIn("W005", self.found())

    def test_not_refreshed(self):
        sql("SELECT profile_cache.invalidate_all()")
        self.assertNotIn("W006", self.found())
        with override_settings(PROFILE_CACHE_PENDING=datetime.timedelta(0)):
            self.assertIn("W006", self.found())
        call_command("profile_cache_refresh")
        with override_settings(PROFILE_CACHE_PENDING=datetime.timedelta(0)):
            self.assertEqual(self.found(), [])

    def test_a_table_changed_since(self):
        """In the extension's own words."""
        ((key, definition),) = sql(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'user_subscription'::regclass AND confrelid = 'user_profile'::regclass"
        )
        sql(f"ALTER TABLE user_subscription DROP CONSTRAINT {key}")
        self.addCleanup(sql, f"ALTER TABLE user_subscription ADD CONSTRAINT {key} {definition}")
        self.assertIn("W007", self.found())

    def test_who_may_not_read_it(self):
        """says so, and what would help."""
        with transaction.atomic():
            sql("SET LOCAL ROLE stranger")
            self.assertEqual(self.found(), ["W003"])
            transaction.set_rollback(True)
