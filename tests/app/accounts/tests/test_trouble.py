"""When the database is in trouble the app says what it always said, whichever variant answers."""

import logging

from django.core.cache import cache
from django.db import connection, transaction
from django.test import override_settings

from accounts.sources import SOURCES
from accounts.tests.support import FROM_DATABASE, AppTestCase, answer, in_another_session

ERROR = (500, "application/json", {"error": "Profile not available"})


class Trouble(AppTestCase):
    def setUp(self):
        super().setUp()
        logging.disable(logging.ERROR)  # the app logs each of these
        self.addCleanup(logging.disable, logging.NOTSET)

    def assert_trouble(self):
        """Redis answers what it holds, which needs no database, and fails like the others otherwise."""
        held = answer("redis", self.ada.supabase_user_id)
        self.assertEqual(held[0], 200)
        cache.clear()
        for name in SOURCES:
            with self.subTest(name):
                self.assertEqual(answer(name, self.ada.supabase_user_id), ERROR)

    def assert_well(self):
        self.assertEqual(self.assert_same_id(self.ada.supabase_user_id)[0], 200)

    def test_connection_refused(self):
        port = connection.settings_dict["PORT"]
        connection.close()
        connection.settings_dict["PORT"] = "1"
        try:
            self.assert_trouble()
        finally:
            connection.close()
            connection.settings_dict["PORT"] = port
        self.assert_well()

    def test_connection_lost(self):
        for name in FROM_DATABASE:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                (backend,) = cursor.fetchone()
            in_another_session(terminate, backend)
            with self.subTest(name):
                self.assertEqual(answer(name, self.ada.supabase_user_id), ERROR)
            connection.close()  # as Django does after each request, but not after the test client's
        self.assert_well()

    def test_statement_timeout(self):
        """Somebody holds the table for longer than a statement may take."""
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE user_profile")
            in_another_session(self.assert_trouble_when_impatient)
        self.assert_well()

    def assert_trouble_when_impatient(self):
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '50ms'")
        self.assert_trouble()

    def test_not_attached(self):
        """The app is ahead of its migrations: get_profile fails, and the error says why in the log."""
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT profile_cache.detach()")
            self.assertEqual(answer("as_it_was", self.ada.supabase_user_id)[0], 200)
            self.assertEqual(answer("get_profile", self.ada.supabase_user_id), ERROR)
            transaction.set_rollback(True)
        self.assert_well()

    def test_redis_is_down(self):
        with override_settings(CACHES={"default": {
            "BACKEND": "django_redis.cache.RedisCache", "LOCATION": "unix:///nowhere", "OPTIONS": {"IGNORE_EXCEPTIONS": True},
        }}):  # fmt: skip
            self.assert_well()


def terminate(backend):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
