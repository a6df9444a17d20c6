"""Each process's copies of profiles (PROFILE_SOURCE=copied): as right as the listener, which nothing that happens to its
connection makes miss a change."""

import contextlib
import json
import os
import subprocess
import time

import psycopg
from django.db import connection
from django.test import override_settings

from accounts import sources
from accounts.models import SubscriptionPlan, UserProfile, UserRole
from accounts.tests.support import AppTestCase, answer, sql

SECONDS = 20  # after which what is expected will not come any more
LISTENER = "FROM pg_stat_activity WHERE application_name = 'django_profile_cache listener'"


class Copied(AppTestCase):
    def setUp(self):
        super().setUp()
        connection.close()  # what the migrations set for the database holds from the next connection on
        name = f"dbname={connection.settings_dict['NAME']}"
        with override_settings(LISTEN_TO=name):
            self.copies = sources.copies()
        self.addCleanup(sources.copies.cache_clear)
        self.addCleanup(self.copies.close)
        self.until(lambda: self.copies.listener.listening)
        self.until(lambda: all(self.is_copy(user) for user in self.users))

    def until(self, holds):
        deadline = time.monotonic() + SECONDS
        while not holds():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)

    def is_copy(self, user):
        """Whether the endpoint answers without a query."""
        asked = []

        def count(execute, *args):
            asked.append(1)
            return execute(*args)

        with connection.execute_wrapper(count):
            answer("copied", user.supabase_user_id)
        return not asked

    def name(self, user):
        status, _, body = answer("copied", user.supabase_user_id)
        return body["full_name"] if status == 200 else status

    @contextlib.contextmanager
    def away(self):
        """While the listener has lost its connection, and finds no other one."""
        sql("SELECT 1")  # ours is there already
        with psycopg.connect(dbname="postgres", user=os.environ["SUPERUSER"], autocommit=True) as other:
            limit = f'ALTER DATABASE "{connection.settings_dict["NAME"]}" CONNECTION LIMIT'
            other.execute(f"{limit} 0")
            self.assertEqual(len(sql(f"SELECT pg_terminate_backend(pid, 5000) {LISTENER}")), 1)
            self.until(lambda: not self.copies.listener.listening)
            yield
            other.execute(f"{limit} -1")
        self.until(lambda: self.copies.listener.listening)

    def test_same_as_the_others(self):
        for user in self.users:
            self.assertEqual(answer("copied", user.supabase_user_id), answer("get_profile", user.supabase_user_id))

    def test_follows(self):
        UserProfile.objects.filter(id=self.ada.id).update(full_name="Ada L.")
        self.until(lambda: self.name(self.ada) == "Ada L.")
        UserRole.objects.filter(user=self.bob).delete()
        self.until(lambda: answer("copied", self.bob.supabase_user_id)[2]["roles"] == [])
        SubscriptionPlan.objects.filter(id="pro").update(display_name="Professional")
        self.until(lambda: answer("copied", self.ada.supabase_user_id)[2]["subscription_display_name"] == "Professional")
        UserProfile.objects.filter(id=self.eve.id).delete()
        self.until(lambda: self.name(self.eve) == 404)

    def test_connection_killed(self):
        """What is changed and deleted meanwhile; and what is not is still a copy."""
        with self.away():
            UserProfile.objects.filter(id=self.ada.id).update(full_name="Ada L.")
            UserProfile.objects.filter(id=self.eve.id).delete()
            self.assertEqual(self.name(self.ada), "Ada L.")
            sql("CALL profile_cache.refresh()")
        self.assertEqual((self.name(self.ada), self.name(self.eve)), ("Ada L.", 404))
        self.assertTrue(self.is_copy(self.bob))

    def test_server_restarted(self):
        for how in ("fast", "immediate"):
            for command in ([*json.loads(os.environ["STOP"]), how], json.loads(os.environ["START"])):
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            connection.close()
            UserProfile.objects.filter(id=self.ada.id).update(full_name=f"Ada {how}")
            self.until(lambda: self.copies.listener.listening)
            # It may have listened again before the change, and then hears of it a moment after the commit.
            self.until(lambda: self.name(self.ada) == f"Ada {how}")
            self.until(lambda: self.is_copy(self.ada))
