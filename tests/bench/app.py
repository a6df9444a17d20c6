"""An app under load, as a process of its own: readers who look at each answer, writers, and an editor of a plan.

    cd tests && .venv-bench/bin/python -m bench.app '{"host": …, "database": …, …}'

Says `ready` when it is connected, begins at a line on its stdin, and ends by itself; then it prints its figures, one JSON.

What a read is, by `source`:
- get_profile: the document, whether it came from the cache, and the view's document, in one statement: one snapshot.
- column: `cached_profile`, which is always there, and the view's document, in one statement.
- redis: GET; a miss reads the view and SETs what it got for 15 minutes. Writers delete the user's copy once they have
  committed, the editor those of all who have the plan: as the example app does by Django's signals (../app/accounts). The view
  is read before the GET; where it has another document than Redis, once more after it: stale is what is neither of them.
"""

import bisect
import contextlib
import itertools
import json
import random
import socket
import statistics
import sys
import threading
import time
import types

import psycopg

KEY = "md5('user' || %(n)s::int)::uuid"
VIEW = f"SELECT d.document::text FROM profile_document AS d WHERE d.supabase_user_id = {KEY}"
READS = {
    "get_profile": f"SELECT profile_cache.explain({KEY}) ->> 'served_from' = 'cache', get_profile({KEY})::text IS DISTINCT FROM ({VIEW})",
    "column": f"SELECT true, (SELECT p.cached_profile::text FROM user_profile AS p WHERE p.supabase_user_id = {KEY}) IS DISTINCT FROM ({VIEW})",
}
# What happens in an app, and how often of forty times. Users 3 * n + 1 have a subscription.
CHANGES = [
    (18, False, "UPDATE user_profile SET last_login = now() WHERE id = %(n)s"),
    (12, False, "UPDATE user_role SET role_id = 7 - role_id WHERE user_id = %(n)s AND role_id IN (1, 6)"),
    (10, True, "UPDATE user_subscription SET status = CASE status WHEN 'active' THEN 'trialing' ELSE 'active' END WHERE user_id = %(n)s"),
]
EDIT = "UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'pro'"
SECONDS = 15 * 60  # that a copy in Redis lives


class Redis:
    """As much of a client as is needed here."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.answers = self.socket.makefile("rb")

    def ask(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        line = self.answers.readline()
        if line[:1] == b"-":
            raise RuntimeError(line.decode())
        if line[:1] != b"$":
            return line[1:].strip()
        length = int(line[1:])
        return None if length < 0 else self.answers.read(length + 2)[:-2]

    def get(self, n):
        return self.ask("GET", f"profile:{n}")

    def set(self, n, document):
        self.ask("SET", f"profile:{n}", document, "EX", SECONDS)

    def delete(self, users):
        if users:
            self.ask("DEL", *(f"profile:{n}" for n in users))


class App:
    def __init__(self, o):
        self.o, self.reads, self.writes, self.edits, self.failures = o, [], [], [], []
        self.random = random.Random(o.seed)
        if o.zipf:
            # The k-th most wanted is asked for 1 / k as often as the first.
            self.ranks = list(range(1, o.users + 1))
            self.random.shuffle(self.ranks)
            self.weights = list(itertools.accumulate(1 / k for k in range(1, o.users + 1)))
        with self.connect() as connection:
            concerned = connection.execute("SELECT user_id FROM user_subscription WHERE plan_id = 'pro'")
            self.concerned = {n for (n,) in concerned.fetchall()}
        self.over = threading.Event()

    def connect(self):
        o = self.o
        return psycopg.connect(host=o.host, port=o.port, user=o.user, dbname=o.database, autocommit=True)

    def redis(self):
        return Redis(self.o.redis) if self.o.source == "redis" else None

    def a_user(self):
        if not self.o.zipf:
            return self.random.randint(1, self.o.users)
        return self.ranks[bisect.bisect_left(self.weights, self.random.random() * self.weights[-1])]

    def read(self, connection, redis, n):
        """Whether it was a hit, and whether it was stale."""
        if not redis:
            return connection.execute(READS[self.o.source], {"n": n}, prepare=True).fetchone()

        def view():
            return connection.execute(VIEW, {"n": n}, prepare=True).fetchone()[0].encode()

        before, found = view(), redis.get(n)
        if found is None:
            redis.set(n, view())
            return False, False
        return True, found not in (before, view()) if found != before else False

    def every(self, seconds, act):
        """Acts so often; who is late by more than a second does not make up for it."""
        with contextlib.closing(self.connect()) as connection:
            redis, at = self.redis(), time.monotonic()
            while not self.over.wait(max(0, at - time.monotonic())):
                try:
                    act(connection, redis)
                except psycopg.Error as error:
                    self.failures.append(f"{error.sqlstate} {error}")
                    if connection.broken:
                        connection = self.connect()
                at = max(at + seconds, time.monotonic() - 1)

    def reading(self, connection, redis):
        n = self.a_user()
        hit, stale = self.read(connection, redis, n)
        self.reads.append((time.monotonic() - self.start, hit, stale, n in self.concerned))

    def writing(self, connection, redis):
        _, subscribers, statement = self.random.choices(CHANGES, [often for often, *_ in CHANGES])[0]
        n = self.random.randint(1, self.o.users)
        n = n - n % 3 - 2 if subscribers and n > 3 else 1 if subscribers else n
        began = time.monotonic()
        connection.execute(statement, {"n": n}, prepare=True)
        self.writes.append((time.monotonic() - began) * 1000)
        if redis:
            redis.delete([n])

    def editing(self, connection, redis):
        began = time.monotonic()
        connection.execute(EDIT)
        self.edits.append(time.monotonic() - began)
        if redis:
            redis.delete(self.concerned)

    def fill_redis(self):
        redis = self.redis()
        with self.connect() as connection:
            for n, document in connection.execute(
                "SELECT p.id, d.document::text FROM user_profile AS p JOIN profile_document AS d USING (supabase_user_id)"
            ):
                redis.set(n, document)

    def warm_enough(self):
        """Whether the last three seconds were as good as is waited for."""
        last = [hit for at, hit, *_ in self.reads if at > time.monotonic() - self.start - 3]
        return bool(self.o.until) and len(last) > self.o.reads and sum(last) >= self.o.until * len(last)

    def run(self):
        o = self.o
        if o.source == "redis":
            self.fill_redis()
        works = [(2 / o.reads, self.reading)] * 2
        if o.writes:
            works += [(4 / o.writes, self.writing)] * 4
        if o.edit_every:
            works.append((o.edit_every, self.editing))
        print("ready", flush=True)
        sys.stdin.readline()
        self.start = time.monotonic()
        threads = [threading.Thread(target=self.every, args=work) for work in works]
        for thread in threads:
            thread.start()
        while time.monotonic() - self.start < o.seconds and not self.warm_enough():
            time.sleep(0.25)
        self.over.set()
        for thread in threads:
            thread.join()
        print(json.dumps(self.figures()))

    def figures(self):
        def share(reads):
            return 100 * sum(hit for _, hit, *_ in reads) / len(reads) if reads else None

        reads, buckets = [read for read in self.reads if read[0] >= self.o.counted_from], []
        last = int(self.reads[-1][0] / self.o.bucket) if self.reads else 0
        for number, some in itertools.groupby(sorted(self.reads), lambda read: int(read[0] / self.o.bucket)):
            if number < last:
                buckets.append(((number + 1) * self.o.bucket, share(list(some))))
        found = {
            "reads": len(reads), "hits %": share(reads), "unconcerned": share([read for read in reads if not read[3]]),
            "stale": sum(stale for _, _, stale, _ in reads), "stale ever": sum(stale for _, _, stale, _ in self.reads), "writes": len(self.writes), "edits": len(self.edits),
            "buckets": buckets, "failures": self.failures[:5], "failed": len(self.failures),
        }  # fmt: skip
        if self.writes:
            cuts = statistics.quantiles(self.writes, n=100)
            found |= {"write p50 ms": cuts[49], "write p99 ms": cuts[98]}
        if self.edits:
            found["edit s"] = statistics.median(self.edits)
        return found


if __name__ == "__main__":
    App(types.SimpleNamespace(**json.loads(sys.argv[1]))).run()
