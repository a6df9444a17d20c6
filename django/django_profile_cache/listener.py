"""Who has changed: the ids of users whose profile may be another one, one after the other, and none left out.

    for user_id in Listener():
        forget(user_id) if user_id else forget_everybody()

The database notifies (profile_cache.notify) when it commits a change, and a notification reaches whoever is connected at that
moment. So that nothing is missed while nobody is, the listener remembers a position in the order of the database's
transactions, and asks after a reconnect who has changed since: profile_cache.changed_since().

Invariant: when the listener asks for a position, and that comes back by the way of the notifications, all that was committed
below it has been handed out before. A position counts only then. PostgreSQL puts a transaction's notifications into its queue before
others see it as committed, and hands the queue out in order.

A position is one of a server that has lost nothing since. After a crash, which with synchronous_commit = off loses what others have
seen, after a failover, or in a restored copy, transactions may have gone, and their numbers be given to others. That is seen by
`SERVER` below, and then everybody may have changed.
"""

import collections
import contextlib
import logging
import random
import secrets
import selectors
import socket
import time
import uuid

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections

__all__ = ["EVERYBODY", "Listener"]

log = logging.getLogger(__name__)

EVERYBODY = None  # any profile may have changed

# PostgreSQL throws its statistics away when it starts after a crash, and the time of that is the time of their reset. A failover
# begins a timeline.
SERVER = """SELECT pg_backend_pid(), format('%s %s %s', system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8), stats_reset)
    FROM pg_control_system(), pg_stat_wal"""
BEAT = "SELECT pg_notify(%s, profile_cache.changes_position()::text)"
PART = 1000  # ids a query
LONGEST_PAUSE = 10  # seconds between two attempts to connect


class Listener:
    """Iterate over it, in one thread. It goes on for good: through lost connections and restarts, until close().

    using: the database, by its alias; conninfo: the way to it where that is another one, say past a pooler, for LISTEN needs a
    session of its own. copies: a function that returns the ids of whom the caller holds copies. After a reconnect no one can name a
    profile that has been deleted meanwhile, so these are asked for; without it everybody may have changed after each reconnect.
    heartbeat: seconds between two positions, each of which costs the database a small transaction."""

    def __init__(self, using=DEFAULT_DB_ALIAS, *, conninfo=None, copies=None, heartbeat=10):
        self._using, self._conninfo, self._copies, self._heartbeat = using, conninfo, copies, heartbeat
        self._heard = collections.deque()
        self._at = None  # (server, position)
        self._sure_until = 0
        self._closed = False
        self._wake, self._woken = socket.socketpair()

    @property
    def listening(self):
        """Whether all that was committed longer ago than two heartbeats is known to have been handed out."""
        return not self._closed and time.monotonic() < self._sure_until

    def close(self):
        """Ends the iteration, from any thread."""
        self._closed = True
        with contextlib.suppress(OSError):  # twice
            self._wake.send(b"x")

    def __iter__(self):
        """Yields a uuid.UUID, or EVERYBODY. Who asks for the next one has dealt with the one before."""
        failed = 0
        while not self._closed:
            try:
                with contextlib.closing(self._connect()) as connection:
                    for user_id in self._follow(connection):
                        failed = 0
                        yield user_id
            except (psycopg.Error, OSError) as error:
                log.warning("not listening: %s", str(error).strip())
            finally:
                self._sure_until = 0
            if not self._closed:
                failed += 1
                self._wait(None, random.uniform(0.5, 1) * min(LONGEST_PAUSE, 0.1 * 2 ** min(failed, 10)))

    def _connect(self):
        # Seconds after which the other side is given up; the user's own conninfo wins.
        patience = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30000}
        known = {"application_name": "django_profile_cache listener"} | patience
        if self._conninfo is None:
            known |= libpq_parameters(connections[self._using])
            return psycopg.connect(autocommit=True, **known)
        return psycopg.connect(self._conninfo, autocommit=True, **{k: v for k, v in known.items() if k not in psycopg.conninfo.conninfo_to_dict(self._conninfo)})

    def _follow(self, connection):
        self._heard.clear()
        connection.add_notify_handler(self._heard.append)
        backend, server = connection.execute(SERVER).fetchone()
        if backend != connection.info.backend_pid:  # then LISTEN would succeed, and nothing be heard
            raise psycopg.OperationalError("this leads to a pooler: LISTEN needs a session of its own")
        # Nobody waits for a migration with a listener's connection in hand.
        connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{self._heartbeat}s"])
        channel = f"profile_cache_position_{secrets.token_hex(8)}"
        connection.execute(f"LISTEN profile_cache; LISTEN {channel}")
        yield from self._missed(connection, server)
        sent = None  # when the heartbeat was that has not come back yet
        due = time.monotonic()
        while not self._closed:
            while self._heard:
                heard = self._heard.popleft()
                if heard.channel == "profile_cache":
                    yield from whom(heard.payload)
                elif heard.pid == backend:  # no one else's word: anyone may notify
                    self._at, self._sure_until, sent = (server, heard.payload), sent + 2 * self._heartbeat, None
            if self._take(connection):
                continue
            now = time.monotonic()
            if now < due:
                self._wait(connection, due - now)
            elif sent is None:
                sent, due = now, now + self._heartbeat
                connection.execute(BEAT, [channel])
            else:
                raise psycopg.OperationalError("the heartbeat has not come back")

    def _missed(self, connection, server):
        """Who may have changed while this was not listening."""
        known, position = self._at or (None, None)
        if known != server or self._copies is None:
            yield EVERYBODY
            return
        for (user_id,) in connection.execute("SELECT profile_cache.changed_since(%s::text::xid8)", [position]):
            yield user_id
            if user_id is EVERYBODY:
                return
        copies = list(self._copies())
        for start in range(0, len(copies), PART):
            ids = [str(user_id) for user_id in copies[start : start + PART]]
            yield from (user_id for (user_id,) in connection.execute("SELECT user_id FROM get_profiles(%s::uuid[]) WHERE profile IS NULL", [ids]))

    def _take(self, connection):
        """Whether there was a notification. One that came with the answer to a query has gone to the handler already."""
        connection.pgconn.consume_input()
        while notification := connection.pgconn.notifies():
            connection.pgconn.notify_handler(notification)
        return bool(self._heard)

    def _wait(self, connection, seconds):
        """Until something arrives, close() is called, or so long."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            if connection:
                selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.select(max(seconds, 0))


def whom(payload):
    """What a notification says: a user's id, or `*`. Any role may notify, so anything else is nothing."""
    if payload == "*":
        yield EVERYBODY
        return
    with contextlib.suppress(ValueError):
        yield uuid.UUID(payload)


def libpq_parameters(connection):
    """Of what Django connects with, what is libpq's."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    return {name: value for name, value in connection.get_connection_params().items() if name in known}
