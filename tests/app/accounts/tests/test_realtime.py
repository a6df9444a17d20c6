"""Who is told that his profile has changed: he whom it concerns, after the commit, and nobody else."""

import asyncio
import contextlib
import http.client
import os
import threading
import time
import uuid

from django.db import connection, transaction
from django.test import SimpleTestCase, override_settings
from django_profile_cache import listener as profile_cache
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from accounts.models import SubscriptionPlan, UserProfile, UserRole, UserSubscription
from accounts.realtime import TOO_LATE, UNAUTHORIZED, Listener
from accounts.tests.live import LiveTestCase
from accounts.tests.support import URL, in_days, request, sql, token

SECONDS = 20  # after which what is expected will not come any more


EVERYBODY = profile_cache.EVERYBODY


class RealtimeTestCase(LiveTestCase):
    def connect(self):
        return self.enterContext(connect(f"ws://{self.address}/ws/profile/", open_timeout=SECONDS))

    def socket(self, user_id):
        """A page's socket, when it has been told everything that happened up to now."""
        socket = self.connect()
        socket.send(token(user_id))
        self.assertEqual(socket.recv(SECONDS), "look")
        self.wait_until_listening()
        sql("SELECT pg_notify('profile_cache', %s)", str(user_id))
        while socket.recv(SECONDS) != "changed":
            pass
        self.told(socket)
        return socket

    def told(self, socket):
        """What it was told until now: what the server has to say goes out before its answer to a ping."""
        self.assertTrue(socket.ping().wait(SECONDS))
        words = []
        while True:
            try:
                words.append(socket.recv(0))
            except TimeoutError:
                return words

    def sockets(self):
        return [self.socket(user.supabase_user_id) for user in self.users]

    def assert_told(self, sockets, *expected):
        """One word each, or None for nothing, and nothing more."""
        for socket, word in zip(sockets, expected, strict=True):
            if word:
                self.assertEqual(socket.recv(SECONDS), word)
        self.assertEqual([self.told(socket) for socket in sockets], [[]] * len(sockets))


class Realtime(RealtimeTestCase):
    def test_whom_it_concerns(self):
        """Each learns of his own, and a message holds nothing but that word."""
        sockets = self.sockets()
        UserRole.objects.create(user=self.ada, role=self.admin)
        self.assert_told(sockets, "changed", None, None)
        UserSubscription.objects.filter(user=self.bob).update(status="canceled")
        self.assert_told(sockets, None, "changed", None)
        request("get_profile", self.eve.supabase_user_id, "patch", data={"full_name": "Eve E."})
        self.assert_told(sockets, None, None, "changed")

    def test_every_page_of_a_user(self):
        sockets = [self.socket(self.ada.supabase_user_id) for _ in range(3)]
        for socket in sockets:
            self.told(socket)  # of the later ones' beginnings
        UserProfile.objects.filter(id=self.ada.id).update(full_name="Ada L.")
        self.assert_told(sockets, *["changed"] * 3)

    def test_what_concerns_many(self):
        """A plan, a role, a bulk change: one message to each process, of which everyone hears."""
        sockets = self.sockets()
        for change in (
            lambda: SubscriptionPlan.objects.filter(id="pro").update(display_name="Professional"),
            lambda: self.editor.delete(),
            lambda: sql("SELECT profile_cache.invalidate_all()"),
        ):
            change()
            self.assert_told(sockets, "look", "look", "look")

    def test_after_the_commit_once(self):
        sockets = self.sockets()
        with transaction.atomic():
            UserRole.objects.create(user=self.ada, role=self.admin)
            UserProfile.objects.filter(id=self.ada.id).update(full_name="Ada L.")
            self.assert_told(sockets, None, None, None)
        self.assert_told(sockets, "changed", None, None)

    def test_rolled_back(self):
        sockets = self.sockets()
        with transaction.atomic():
            UserRole.objects.create(user=self.ada, role=self.admin)
            transaction.set_rollback(True)
        UserRole.objects.create(user=self.bob, role=self.admin)  # whose message would come after
        self.assert_told(sockets, None, "changed", None)

    def test_what_the_document_does_not_show(self):
        sockets = self.sockets()
        self.bob.sessions.create(user_agent="curl")
        UserSubscription.objects.filter(user=self.bob).update(current_period_start=in_days(-3))
        UserRole.objects.create(user=self.ada, role=self.admin)
        self.assert_told(sockets, "changed", None, None)

    def test_off(self):
        """As it is unless someone turns it on."""
        sockets = self.sockets()
        with connection.cursor() as cursor:
            cursor.execute("SET profile_cache.notify = off")
            UserRole.objects.create(user=self.ada, role=self.admin)
            SubscriptionPlan.objects.filter(id="pro").update(display_name="Professional")
            cursor.execute("RESET profile_cache.notify")
        UserRole.objects.create(user=self.bob, role=self.admin)
        self.assert_told(sockets, None, "changed", None)

    def test_database_connection_lost(self):
        """Nobody knows what was missed, so everyone looks; and then it goes on."""
        sockets = self.sockets()
        self.assertEqual(len(sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'django_profile_cache listener'")), 1)
        UserRole.objects.create(user=self.ada, role=self.admin)
        self.assert_told(sockets, "look", "look", "look")
        UserRole.objects.create(user=self.bob, role=self.admin)
        self.assert_told(sockets, None, "changed", None)

    def test_one_database_connection(self):
        """However many sockets."""
        self.sockets()
        self.assertEqual(sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'django_profile_cache listener'"), [(1,)])

    def test_anyone_may_notify(self):
        """Every role of the database may, so nothing is believed: it makes pages look, no more."""
        sockets = self.sockets()
        for payload in ("", "nobody", "{}", str(uuid.uuid4()), str(self.ada.supabase_user_id)):
            sql("SELECT pg_notify('profile_cache', %s)", payload)
        self.assert_told(sockets, "changed", None, None)


class ThroughPgBouncer(RealtimeTestCase):
    """The endpoint's connections are shared, the one that listens is not."""

    @classmethod
    def environment(cls):
        return super().environment() | cls.through_pgbouncer()

    def test_whom_it_concerns(self):
        sockets = self.sockets()
        UserRole.objects.create(user=self.ada, role=self.admin)
        self.assert_told(sockets, "changed", None, None)
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=SECONDS)) as server:
            server.request("GET", URL, headers={"Authorization": f"Bearer {token(self.ada.supabase_user_id)}"})
            self.assertIn("admin", server.getresponse().read().decode())
        names = sql("SELECT application_name FROM pg_stat_activity WHERE application_name IN ('django_profile_cache listener', 'pooled') ORDER BY 1")
        self.assertEqual(names, [("django_profile_cache listener",), ("pooled",)])

    def test_listening_through_it(self):
        """is refused: nothing would be heard."""

        pooled = f"dbname={connection.settings_dict['NAME']} port={os.environ['POOLED_PORT']}"
        listener = profile_cache.Listener(conninfo=pooled)
        with self.assertLogs("django_profile_cache.listener", "WARNING") as logs:
            thread = threading.Thread(target=lambda: list(listener))
            thread.start()
            deadline = time.monotonic() + SECONDS
            while not logs.output and time.monotonic() < deadline:
                time.sleep(0.05)
            listener.close()
            thread.join()
        self.assertIn("this leads to a pooler", logs.output[0])


class Tokens(RealtimeTestCase):
    def assert_closed(self, socket, words=("look",), code=UNAUTHORIZED):
        """Sooner or later, and told no other words before."""
        with self.assertRaises(ConnectionClosed) as raised:
            while True:
                self.assertIn(socket.recv(SECONDS), words)
        self.assertEqual(raised.exception.rcvd.code, code)

    def test_refused(self):
        ada = self.ada.supabase_user_id
        for n, message in enumerate(("", "null", "x" * 9000, token(ada, exp=in_days(-1)), token(ada, secret="of somebody else, and thirty-two bytes"),
                        token(ada, aud="anon"), token("1 OR true"), token(ada).encode())):  # fmt: skip
            with self.subTest(n):
                socket = self.connect()
                socket.send(message)
                self.assert_closed(socket, ())

    def test_nothing_before_the_token(self):
        """Nor for a token that comes too late, or somewhere else."""
        silent = self.connect()
        in_url = self.enterContext(connect(f"ws://{self.address}/ws/profile/?token={token(self.ada.supabase_user_id)}"))
        known = self.socket(self.ada.supabase_user_id)
        UserRole.objects.create(user=self.ada, role=self.admin)
        sql("NOTIFY profile_cache, '*'")
        self.assertEqual({known.recv(SECONDS), known.recv(SECONDS)}, {"changed", "look"})
        for socket in (silent, in_url):
            self.assert_closed(socket, (), TOO_LATE)

    def test_ends_with_the_token(self):
        socket = self.connect()
        socket.send(token(self.ada.supabase_user_id, exp=int(time.time()) + 2))
        self.assert_closed(socket)

    def test_a_second_token_changes_nothing(self):
        socket, bob = self.socket(self.ada.supabase_user_id), self.socket(self.bob.supabase_user_id)
        socket.send(token(self.bob.supabase_user_id))
        UserRole.objects.create(user=self.bob, role=self.admin)
        self.assert_told([socket, bob], None, "changed")


class Pace(SimpleTestCase):
    """Where everyone is told to look, not all come at once."""

    class Socket:
        def __init__(self):
            self.words = []

        def say(self, word):
            self.words.append(word)

    @override_settings(LOOKS_PER_SECOND=100)
    def test_one_after_the_other_once(self):
        async def run():
            listener, sockets = Listener(), [self.Socket() for _ in range(20)]
            for n, socket in enumerate(sockets):
                listener.sockets[str(n % 7)].add(socket)
            start = time.monotonic()
            for _ in range(1000):  # while the first have hardly been told
                listener.heard(EVERYBODY)
            await listener.telling
            return [socket.words for socket in sockets], time.monotonic() - start

        words, took = asyncio.run(run())
        self.assertEqual(words, [["look"]] * 20)
        self.assertGreaterEqual(took, 0.19)

    def test_who_has_gone_is_told_nothing(self):
        async def run():
            listener, socket, user_id = Listener(), self.Socket(), uuid.uuid4()
            with listener.knowing(socket, user_id):
                listener.heard(EVERYBODY)
            listener.heard(user_id)
            await listener.telling
            return socket.words, dict(listener.sockets)

        self.assertEqual(asyncio.run(run()), ([], {}))
