"""The load of test_nodes.py: an app's writers, its editor and its readers, each a thread with connections of its own, all by HAProxy.

What must be so is looked at on the way: what is not lands in `wrong`; what the servers or HAProxy break off is counted, and
whoever is broken off connects anew. Each writer has users of its own, so that it knows what each of them must show.
"""

import collections
import contextlib
import json
import random
import threading
import time

import psycopg

KEY = "md5('user' || %(n)s::int)::uuid"  # of user n, as in ../demo/data.sql
NAME = "UPDATE user_profile SET full_name = %(name)s WHERE id = %(n)s"
CHANGES = [
    "UPDATE user_subscription SET status = CASE status WHEN 'active' THEN 'trialing' ELSE 'active' END WHERE user_id = %(n)s AND status IN ('active', 'trialing')",
    "INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (%(n)s, 4, now()) ON CONFLICT (user_id, role_id) DO NOTHING",
    "DELETE FROM user_role WHERE user_id = %(n)s AND role_id = 4",
]
SIGN_UP = [
    f"""INSERT INTO user_profile (id, supabase_user_id, email, full_name, avatar_url, company, job_title, timezone, language,
        is_active, is_verified, onboarding_completed, preferences, created_at, updated_at)
        VALUES (%(n)s, {KEY}, 'user' || %(n)s, %(name)s, '', '', '', 'Europe/Berlin', 'de', true, false, false, '{{}}', now(), now())""",
    "INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (%(n)s, 1, now())",
]
NEW = 1_000_000  # users from here on have signed up under load
# A user who has the plan and the role that the editor edits, and whom no writer has.
EDITED = 4
EDITS = {
    "UPDATE subscription_plan SET display_name = %(name)s WHERE id = 'pro'": lambda document: document["subscription_display_name"],
    "UPDATE role SET permissions = jsonb_build_array(%(name)s::text) WHERE name = 'editor'": lambda document: next(
        role["permissions"][0] for role in document["roles"] if role["name"] == "editor"
    ),
}
POSITION = "SELECT pg_current_wal_insert_lsn()::text"
STORED = f"SELECT full_name FROM user_profile WHERE supabase_user_id = {KEY}"
# What a reader is broken off by: conflicts with recovery (40001, 40P01), a server that ends or is not there yet, HAProxy.
BROKEN = ("40001", "40P01", "57P01", "57P02", "57P03", "25006")


def broken_off(error):
    return error.sqlstate in BROKEN or (error.sqlstate is None and isinstance(error, psycopg.OperationalError))


class Connection:
    """A connection by HAProxy, made anew when it has been broken off."""

    def __init__(self, load, conninfo):
        self.load, self.conninfo, self.pg = load, conninfo, None

    def __call__(self):
        while self.pg is None or self.pg.closed:
            try:
                self.pg = psycopg.connect(self.conninfo, autocommit=True, connect_timeout=5)
            except psycopg.OperationalError as error:
                self.load.count("connects refused")
                if self.load.gave_up():
                    raise RuntimeError(f"no connection: {error}") from error
                time.sleep(0.05)
        return self.pg

    def drop(self):
        if self.pg is not None:
            self.pg.close()


class Load:
    """read_own: how one's own writes are read, as docs/operations/standbys.md has it."""

    def __init__(self, writes, reads, users, read_own, writers=3, readers=3):
        self.writes, self.reads, self.users, self.read_own, self.writers = writes, reads, users, read_own, writers
        self.over, self.lock, self.counts = threading.Event(), threading.Lock(), collections.Counter()
        self.wrong, self.acknowledged, self.committed_at, self.where = [], {}, [], collections.Counter()
        works = [(self.writing, w) for w in range(writers)] + [(self.reading, r) for r in range(readers)] + [(self.editing, 0)]
        self.threads = [threading.Thread(target=self.run, args=work, daemon=True) for work in works]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.ended = time.monotonic()
        for thread in self.threads:
            thread.join(90)
        if any(thread.is_alive() for thread in self.threads):
            self.wrong.append("a thread of the load hangs")

    def gave_up(self):
        return self.over.is_set() and time.monotonic() > self.ended + 60

    def run(self, work, number):
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 whatever it is, the test is to hear of it
            self.wrong.append(f"{work.__name__} {number}: {error!r}")

    def count(self, what, where=None):
        with self.lock:
            (self.counts if where is None else self.where)[what if where is None else (what, where)] += 1

    def check(self, what, got, wanted):
        self.count(what)
        if got not in wanted:
            self.wrong.append(f"{what}: {got!r}, expected {wanted!r}")

    # Writers

    def writing(self, number):
        """Names that only this writer gives; each is read again from where reads go."""
        rng, pg, reads = random.Random(number), Connection(self, self.writes), Connection(self, self.reads)
        mine = [n for n in range(5, self.users + 1) if n % self.writers == number]
        last, i = {}, 0
        while not self.over.is_set():
            i += 1
            name, new = f"writer {number}, {i}", rng.random() < 0.1
            n = NEW * (number + 1) + i if new else rng.choice(mine)
            statements = SIGN_UP if new else [NAME, rng.choice(CHANGES)]
            position = self.write(pg, statements, n, name)
            if position is None:  # nobody knows whether it has committed
                found = self.found(pg, n)
                self.check("what became of a commit in doubt", found, [last.get(n, None if new else f"User Number {n}"), name])
            else:
                found = name
                self.check_own(pg, reads, n, position, lambda document: document["full_name"], name)
            if found is not None:
                last[n] = found
        self.acknowledged |= last
        pg.drop()
        reads.drop()

    def write(self, pg, statements, n, name):
        """One transaction; the log's position after its commit, or None."""
        try:
            with pg().transaction():
                for statement in statements:
                    pg.pg.execute(statement, {"n": n, "name": name})
            self.committed_at.append(time.monotonic())
            self.count("writes")
            return pg.pg.execute(POSITION).fetchone()[0]
        except psycopg.Error as error:
            if not broken_off(error):
                raise
            self.count(f"writes broken off, {error.sqlstate}")
            pg.drop()
            return None

    def found(self, pg, n):
        while True:
            try:
                row = pg().execute(STORED, {"n": n}).fetchone()
                return row and row[0]
            except psycopg.Error as error:
                if not broken_off(error) or self.gave_up():
                    raise
                pg.drop()
                time.sleep(0.05)

    def check_own(self, pg, reads, n, position, shown, name):
        try:
            key = pg().execute(f"SELECT {KEY}", {"n": n}).fetchone()[0]
            document = self.read_own(pg(), reads(), key, position)
        except psycopg.Error as error:
            if not broken_off(error):
                raise
            self.count("reads of one's own broken off")
            pg.drop()
            reads.drop()
            return
        self.check("reads of one's own", shown(json.loads(document)) if document else None, [name])

    def editing(self, _):
        """A plan and a role, in turn; each is seen from where reads go, as soon as it has been replayed there."""
        pg, reads, i = Connection(self, self.writes), Connection(self, self.reads), 0
        while not self.over.wait(0.15):
            for statement, shown in EDITS.items():
                i += 1
                name = f"edited {i}"
                position = self.write(pg, [statement], EDITED, name)
                if position is not None:
                    self.count("edits")
                    self.check_own(pg, reads, EDITED, position, shown, name)
        pg.drop()
        reads.drop()

    # Readers

    def reading(self, number):
        """The document and the view's, in one snapshot that the replay runs away from."""
        rng, reads = random.Random(100 + number), Connection(self, self.reads)
        while not self.over.is_set():
            try:
                for _ in range(30):
                    self.compare(reads(), rng)
            except psycopg.Error as error:
                if not broken_off(error):
                    raise
                self.count(f"reads broken off, {error.sqlstate}")
            reads.drop()

    def compare(self, pg, rng):
        n = {"n": rng.randint(1, self.users)}
        with pg.transaction(), contextlib.closing(pg.cursor()) as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            role, port = cursor.execute("SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END, inet_server_port()").fetchone()
            time.sleep(rng.random() * 0.01)
            hit, got = cursor.execute(f"SELECT profile_cache.explain({KEY}) ->> 'served_from' = 'cache', get_profile({KEY})::text", n).fetchone()
            time.sleep(rng.random() * 0.005)
            wanted = cursor.execute(f"SELECT document::text FROM profile_document WHERE supabase_user_id = {KEY}", n).fetchone()[0]
        self.check("reads beside the view", got, [wanted])
        self.count(port, "hits" if hit else "misses")
        self.count(role, "hits" if hit else "misses")
