"""Whom the listener names: all whose profile has changed, whatever happens to its connection meanwhile."""

import contextlib
import os
import signal
import threading
import time
import uuid
from unittest import mock

import psycopg
from django.db import connection, transaction

from django_profile_cache.copies import Copies
from django_profile_cache.listener import EVERYBODY, Listener
from tests.models import SubscriptionPlan, UserProfile, UserSubscription
from tests.support import PackageTestCase, restart, sql

SECONDS = 20  # after which what is expected will not come any more
LISTENERS = "FROM pg_stat_activity WHERE application_name = 'django_profile_cache listener'"


class ListenerTestCase(PackageTestCase):
    def setUp(self):
        super().setUp()
        connection.close()  # what the migrations set for the database holds from the next connection on

    def until(self, holds, what="it never came to be"):
        deadline = time.monotonic() + SECONDS
        while not holds():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def listen(self, **options):
        """A listener, and what it has named, from when all that happened up to now has been."""
        named, listener = Named(), Listener(heartbeat=0.3, **options)
        thread = threading.Thread(target=named.follow, args=[listener])
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(listener.close)
        self.until(lambda: listener.listening)
        self.assertEqual(named.taken(), [EVERYBODY])
        return listener, named

    def names(self, named, *expected):
        """All of these in the end."""
        expected = {user.supabase_user_id if user else EVERYBODY for user in expected}
        self.until(lambda: expected <= set(named), f"{named} and not {expected}")

    def ends_connection(self):
        self.assertEqual(len(sql(f"SELECT pg_terminate_backend(pid, 5000) {LISTENERS}")), 1)


class Named(list):
    def follow(self, listener):
        for user_id in listener:
            self.append(user_id)

    def taken(self):
        taken = list(self)
        self.clear()
        return taken


@contextlib.contextmanager
def no_connections():
    """Nobody may connect to the database for as long."""
    name = connection.settings_dict["NAME"]
    with psycopg.connect(dbname="postgres", user=os.environ["SUPERUSER"], autocommit=True) as other:
        other.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
        try:
            yield
        finally:
            other.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1')


class Listening(ListenerTestCase):
    def test_whom(self):
        _, named = self.listen()
        UserProfile.objects.filter(id=self.bob.id).update(full_name="Bobby")
        self.names(named, self.bob)
        self.assertEqual(named.taken(), [self.bob.supabase_user_id])
        SubscriptionPlan.objects.update(ai_daily_limit=1)
        self.names(named, EVERYBODY)

    def test_after_the_commit(self):
        _, named = self.listen()
        with transaction.atomic():
            UserProfile.objects.filter(id=self.bob.id).update(full_name="Bobby")
            time.sleep(0.5)
            self.assertEqual(named, [])
        self.names(named, self.bob)

    def test_anyone_may_notify(self):
        """So what is no id is nothing, and nobody else's position counts."""
        with mock.patch("django_profile_cache.listener.secrets.token_hex", return_value="known"):
            listener, named = self.listen()
        for payload in ("", "nobody", "{}"):
            sql("SELECT pg_notify('profile_cache', %s)", payload)
        for _ in range(20):
            sql("SELECT pg_notify('profile_cache_position_known', '1')")
        UserProfile.objects.filter(id=self.bob.id).update(full_name="Bobby")
        self.names(named, self.bob)
        self.assertEqual(named.taken(), [self.bob.supabase_user_id])
        self.assertGreater(int(listener._at[1]), 1)

    def test_close(self):
        """At once, from another thread, wherever it is."""
        listener, _ = self.listen()
        start = time.monotonic()
        listener.close()
        self.until(lambda: not sql(f"SELECT 1 {LISTENERS}"))
        self.assertLess(time.monotonic() - start, 0.3 + 1)
        self.assertFalse(listener.listening)

    def test_a_way_of_its_own(self):
        name = connection.settings_dict["NAME"]
        _, named = self.listen(conninfo=f"dbname={name} application_name=mine")
        self.assertEqual(sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mine'"), [(1,)])
        UserProfile.objects.filter(id=self.bob.id).update(full_name="Bobby")
        self.names(named, self.bob)


class Gaps(ListenerTestCase):
    """What happens while it is away is named when it is back; and no more than that where it is exact."""

    def copies(self):
        return [user.supabase_user_id for user in self.users]

    def away(self, listener, change):
        with no_connections():
            self.ends_connection()
            self.until(lambda: not listener.listening)
            change()
        self.until(lambda: listener.listening)

    def setUp(self):
        super().setUp()
        self.listener, self.named = self.listen(copies=self.copies)
        sql("SELECT 1")  # a connection is there already when nobody may connect

    def test_connection_lost(self):
        self.away(self.listener, lambda: UserProfile.objects.filter(id=self.bob.id).update(full_name="Bobby"))
        self.names(self.named, self.bob)
        self.assertNotIn(EVERYBODY, self.named)
        self.assertNotIn(self.eve.supabase_user_id, self.named)
        self.named.clear()
        UserProfile.objects.filter(id=self.eve.id).update(full_name="Evie")
        self.names(self.named, self.eve)

    def test_nothing_happened(self):
        time.sleep(0.7)  # a position after setUp's own changes
        self.named.clear()
        self.away(self.listener, lambda: None)
        self.assertEqual(self.named, [])

    def test_pending(self):
        self.away(self.listener, lambda: SubscriptionPlan.objects.update(ai_daily_limit=1))
        self.names(self.named, EVERYBODY)

    def test_deleted(self):
        """changed_since() cannot name a row that is gone."""

        def change():
            UserProfile.objects.filter(id=self.bob.id).delete()
            sql("CALL profile_cache.refresh()")  # so that nothing is pending any more

        self.away(self.listener, change)
        self.names(self.named, self.bob)
        self.assertNotIn(self.eve.supabase_user_id, self.named)

    def test_under_way_before_and_committed_meanwhile(self):
        """Begun before the last position, so older than it by its number; what is under way holds the position back."""
        with psycopg.connect(dbname=connection.settings_dict["NAME"]) as other:
            other.execute("UPDATE user_profile SET full_name = 'slow' WHERE id = %s", [self.bob.id])
            time.sleep(0.7)
            self.named.clear()
            self.away(self.listener, other.commit)
        self.names(self.named, self.bob)

    def test_restart(self):
        """An orderly one loses nothing, and all that was before is still known."""
        time.sleep(0.7)
        self.named.clear()
        restart("fast")
        UserProfile.objects.filter(id=self.bob.id).update(full_name="Bobby")
        self.until(lambda: self.listener.listening)
        self.names(self.named, self.bob)
        self.assertNotIn(EVERYBODY, self.named)

    def test_crashes(self):
        """What others have seen may be gone, and the numbers of its transactions be given to others: everybody."""
        for crash in (lambda: restart("immediate"), self.kill_a_backend):
            self.named.clear()
            crash()
            self.until(lambda: self.listener.listening)
            self.names(self.named, EVERYBODY)

    def kill_a_backend(self):
        (pid,) = sql("SELECT pg_backend_pid()")[0]
        os.kill(pid, signal.SIGKILL)
        connection.close()
        self.until(self.back)

    def back(self):
        try:
            return sql("SELECT 1")
        except Exception:
            connection.close()

    def test_without_copies_it_is_everybody(self):
        self.listener.close()
        listener, named = self.listen()
        self.until(lambda: len(sql(f"SELECT 1 {LISTENERS}")) == 1)
        self.away(listener, lambda: None)
        self.names(named, EVERYBODY)


class CopiesOfProfiles(ListenerTestCase):
    def setUp(self):
        super().setUp()
        self.copies = Copies(heartbeat=0.3)
        self.copies.start()
        self.addCleanup(self.copies.close)
        self.until(lambda: self.copies.listener.listening)

    def queries(self, user):
        with CountedQueries() as counted:
            text = self.copies.get(user.supabase_user_id)
        return text, counted.queries

    def held(self, user):
        """Its text, when a copy is served."""
        self.until(lambda: self.queries(user)[1] == 0)
        return self.copies.get(user.supabase_user_id)

    def test_asks_nobody(self):
        self.assertIn('"Ada"', self.held(self.ada))

    def test_follows(self):
        self.held(self.ada)
        UserProfile.objects.filter(id=self.ada.id).update(full_name="Ada L.")
        self.until(lambda: '"Ada L."' in self.copies.get(self.ada.supabase_user_id))
        self.assertIn('"Ada L."', self.held(self.ada))
        UserProfile.objects.filter(id=self.ada.id).delete()
        self.until(lambda: self.copies.get(self.ada.supabase_user_id) is None)

    def test_connection_lost(self):
        self.held(self.ada)
        self.held(self.bob)
        sql("SELECT 1")
        with no_connections():
            self.ends_connection()
            self.until(lambda: not self.copies.listener.listening)
            UserProfile.objects.filter(id=self.ada.id).update(full_name="Ada L.")
            self.assertIn('"Ada L."', self.copies.get(self.ada.supabase_user_id))  # nothing is served from a copy now
            UserProfile.objects.filter(id=self.bob.id).delete()
        self.until(lambda: self.copies.listener.listening)
        self.assertIn('"Ada L."', self.copies.get(self.ada.supabase_user_id))
        self.assertIsNone(self.copies.get(self.bob.supabase_user_id))

    def test_not_what_is_not_sure(self):
        """What is read from the view, in a transaction that has changed it, or in an old snapshot, is not kept."""
        with transaction.atomic():
            UserProfile.objects.filter(id=self.ada.id).update(full_name="never")
            self.assertIn("never", self.copies.get(self.ada.supabase_user_id))
            transaction.set_rollback(True)
        self.assertIn('"Ada"', self.copies.get(self.ada.supabase_user_id))
        with transaction.atomic():
            sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self.copies.get(self.bob.supabase_user_id)
        self.assertEqual(self.queries(self.bob)[1], 1)

    def test_expires(self):
        UserSubscription.objects.filter(user=self.ada).update(current_period_end=sql("SELECT now() + interval '2 seconds'")[0][0])
        self.until(lambda: '"Pro"' in self.copies.get(self.ada.supabase_user_id))
        self.held(self.ada)
        self.until(lambda: '"Free Plan"' in self.copies.get(self.ada.supabase_user_id))

    def test_what_changes_while_it_is_read(self):
        """is not kept: the read may be older than what was heard, or than the moment at which it listened again."""
        ada = self.ada.supabase_user_id
        for heard in (lambda: self.copies._forget(ada), lambda: self.copies._forget(EVERYBODY), self.copies._held):

            def meanwhile(execute, *args, heard=heard):
                try:
                    return execute(*args)
                finally:
                    heard()

            self.copies._forget(EVERYBODY)
            with connection.execute_wrapper(meanwhile):
                self.copies.get(ada)
            self.assertEqual(self.queries(self.ada)[1], 1)
            self.held(self.ada)

    def test_a_connection_that_dies_without_a_word(self):
        """Two heartbeats after the last answer, nothing is served from a copy any more."""
        self.held(self.ada)
        ((backend,),) = sql(f"SELECT pid {LISTENERS}")
        os.kill(backend, signal.SIGSTOP)
        try:
            self.until(lambda: not self.copies.listener.listening)
            self.assertEqual(self.queries(self.ada)[1], 1)
        finally:
            os.kill(backend, signal.SIGCONT)
        self.until(lambda: self.copies.listener.listening)

    def test_most(self):
        small = Copies(heartbeat=0.3, most=2)
        small.start()
        self.addCleanup(small.close)
        self.until(lambda: small.listener.listening)
        for user in self.users:
            small.get(user.supabase_user_id)
        self.assertEqual(small._held(), [user.supabase_user_id for user in self.users[1:]])

    def test_nobody(self):
        self.assertIsNone(self.copies.get(uuid.UUID(int=0)))


class CountedQueries:
    """How many queries this thread's connection was asked."""

    def __enter__(self):
        self.queries, self.wrapper = 0, connection.execute_wrapper(self.count)
        self.wrapper.__enter__()
        return self

    def count(self, execute, *args):
        self.queries += 1
        return execute(*args)

    def __exit__(self, *args):
        self.wrapper.__exit__(*args)
