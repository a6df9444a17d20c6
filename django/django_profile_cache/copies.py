"""Copies of profiles in this process, which the listener keeps true: a read of one asks nobody.

Invariant: what get() returns was the profile at some moment of the last two heartbeats, usually of the last milliseconds. A copy is
handed out only while the listener is sure of itself, and until the moment at which its document expires. One is kept only of what
the database itself serves from its cache, and only if nothing was heard of that user while it was read.

Whoever can ask sees every profile that the database's role may see: row security is not asked again. So ask for a user's own.
"""

import threading
import time

from django.db import DEFAULT_DB_ALIAS, connections

from .listener import EVERYBODY, Listener

__all__ = ["Copies"]

# In one statement, so in one snapshot. It is to be kept where it is newer than what was heard before: not in a transaction of one
# snapshot, which may be old. A document of which the cache is not sure, or that expires, says how long it is good for.
READ = """SELECT get_profile(%(id)s::uuid)::text, e ->> 'served_from' = 'cache' AND current_setting('transaction_isolation') = 'read committed',
    extract(epoch FROM (e ->> 'valid_until')::timestamptz - clock_timestamp())::float8
    FROM profile_cache.explain(%(id)s::uuid) AS e"""


class Copies:
    """most: how many are kept; the oldest go. Give it one for a process, and start() it after a fork."""

    def __init__(self, using=DEFAULT_DB_ALIAS, *, most=10_000, **listener):
        self._using, self._most = using, most
        self._lock = threading.Lock()
        self._copies = {}  # of each user: (text, until when)
        self._reading = {}  # of each user that is being read now: whose read is to be kept
        self.listener = Listener(using, copies=self._held, **listener)
        self._thread = threading.Thread(target=self._listen, name="profile_cache", daemon=True)

    def start(self):
        self._thread.start()

    def close(self):
        self.listener.close()
        self._thread.join()

    def get(self, user_id):
        """As get_profile(user_id). user_id: a uuid.UUID."""
        now, read = time.monotonic(), object()
        with self._lock:
            text, until = self._copies.get(user_id, (None, 0))
            if now < until and self.listener.listening:
                return text
            self._reading[user_id] = read
        keep = False
        try:
            with connections[self._using].cursor() as cursor:
                cursor.execute(READ, {"id": str(user_id)})
                text, keep, seconds = cursor.fetchone()
        finally:
            with self._lock:
                if self._reading.get(user_id) is read:
                    del self._reading[user_id]
                    if keep and self.listener.listening:
                        self._keep(user_id, text, float("inf") if seconds is None else now + seconds)
        return text

    def _keep(self, user_id, text, until):
        self._copies.pop(user_id, None)
        while len(self._copies) >= self._most:
            del self._copies[next(iter(self._copies))]
        self._copies[user_id] = text, until

    def _listen(self):
        for user_id in self.listener:
            self._forget(user_id)

    def _forget(self, user_id):
        with self._lock:
            for held in (self._copies, self._reading):
                if user_id is EVERYBODY:
                    held.clear()
                else:
                    held.pop(user_id, None)

    def _held(self):
        """Of whom there are copies. The listener asks when it listens again: what is being read now may be older than that."""
        with self._lock:
            self._reading.clear()
            return list(self._copies)
