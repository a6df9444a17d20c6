"""Users on three shards behind a router with PL/Proxy, and then on four, as docs/operations/sharding.md describes it: its SQL is
that of this folder. All databases are on one server of the test's own.

Whatever moves and whoever is killed meanwhile, nobody reads an older document than was there when he asked, or none; nothing
that was said to be written is lost; and no user is on two shards.
"""

import contextlib
import random
import re
import subprocess
import threading
import time
import uuid

import psycopg
import pytest

from lib.cluster import OUTPUT, ROOT, TESTS, Cluster
from lib.command import Failed, Vacuous
from lib.filled import VERIFY, expect, wait_for

HERE = TESTS / "shards"
PAGE = ROOT / "docs/operations/sharding.md"
EXAMPLE = "a3f1c9d2-5b7e-4c68-9f04-2d8e61b7c0a5"
PLANS, ROLES = ["free", "pro", "team"], ["admin", "editor", "member"]
AGAIN = "40001"
UNTIL = "2100-01-01 00:00:00+00"
# What a session that moves users may meet: a move that is under way or over, an earlier one's late part, its own end.
MOVER_MEETS = {AGAIN, "55006", "55000", "57014", "57P01", "P0002"}


class Shards:
    """The cluster: a database of dimensions, a router, shards."""

    def __init__(self, cluster):
        self.cluster, self.count = cluster, 3
        self.env = {"host": str(cluster.dir), "port": cluster.port}

    def address(self, database):
        return f"host={self.cluster.dir} port={self.cluster.port} dbname={database}"

    def run(self, database, file, **variables):
        options = [option for name, value in variables.items() for option in ("-v", f"{name}={value}")]
        done = self.cluster.psql(database, *options, "-f", HERE / file, capture_output=True)
        if done.returncode:
            raise Failed(f"{file}: {done.stderr}")

    def make(self):
        self.cluster.sql("postgres", "CREATE ROLE web LOGIN")
        self.cluster.create("dimensions")
        self.run("dimensions", "dimensions.sql")
        for plan in PLANS:
            self.cluster.sql("dimensions", f"INSERT INTO dimension.subscription_plan VALUES ('{plan}', '{plan}', 1, '{{}}')")
        for role in ROLES:
            self.cluster.sql("dimensions", f"INSERT INTO dimension.role (name, permissions) VALUES ('{role}', '[]')")
        for number in range(3):
            self.make_shard(number)
        self.cluster.create("router")
        self.run("router", "router.sql", owner=self.cluster.user, **{f"shard{n}": self.address(f"shard{n}") for n in range(3)})

    def make_shard(self, number):
        name = f"shard{number}"
        self.cluster.create(name)
        self.run(name, "shard.sql")
        # CREATE SUBSCRIPTION would wait for itself if it made the slot in its own server.
        self.cluster.sql("dimensions", f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
        self.run(name, "subscribe.sql", name=name, source=f"{self.address('dimensions')} user={self.cluster.user}")
        self.caught_up(number)
        wait_for(self.cluster, name, "the tables are copied", "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
        self.cluster.sql(name, "CALL profile_cache.refresh()")

    def add_shard(self):
        self.make_shard(3)
        self.run("router", "add_shard.sql", shard3=self.address("shard3"))
        self.count = 4

    def spread(self):
        for _ in range(50):
            done = self.cluster.psql("router", "-v", "VERBOSITY=sqlstate", "-f", HERE / "spread.sql", capture_output=True)
            # Others move users of the bucket, or have.
            if not done.returncode or not set(re.findall(r"ERROR: +(\w{5})$", done.stderr, re.MULTILINE)) <= MOVER_MEETS:
                break
        if done.returncode:
            raise Failed(f"spread.sql: {done.stderr}")

    def caught_up(self, number):
        edits = self.cluster.sql("dimensions", "SELECT edits FROM dimension.edition")
        wait_for(self.cluster, f"shard{number}", "plans and roles have come", f"SELECT coalesce(max(edits), 0) >= {edits} FROM dimension.edition")

    def shard(self, number, sql):
        return self.cluster.sql(f"shard{number}", sql)

    def router(self, sql):
        return self.cluster.sql("router", sql)

    def connect(self, database="router", user="web"):
        return psycopg.connect(f"{self.address(database)} user={user}", autocommit=True)

    def where(self, user):
        """The shards that have the user."""
        return [n for n in range(self.count) if self.shard(n, f"SELECT count(*) FROM user_profile WHERE supabase_user_id = '{user}'") != "0"]

    def routed(self, user):
        return int(self.router(f"SELECT router.shard_of('{user}')"))

    def move(self, user, target):
        self.router(f"CALL router.move_user('{user}', {target})")

    def sign_up(self):
        user = str(uuid.uuid4())
        self.router(f"SELECT sign_up('{user}', '{user}@example.com', 'first')")
        return user


@pytest.fixture(scope="module")
def shards(server):
    subprocess.run([TESTS / "setup.sh", "shards", server.major], check=True)
    with Cluster(server.major) as cluster:
        cluster.library = server.library
        cluster.stop("fast")
        cluster.start(
            wal_level="logical", max_worker_processes="24", max_logical_replication_workers="20", max_wal_senders="20", max_replication_slots="20",
            max_connections="100", wal_retrieve_retry_interval="100ms",
        )  # fmt: skip
        made = Shards(cluster)
        made.make()
        yield made
        (OUTPUT / "shards.log").write_text(cluster.log())
        if crashes := cluster.crashes():
            raise RuntimeError("\n".join(crashes))


def refused(state, do):
    try:
        do()
    except psycopg.Error as error:
        expect("SQLSTATE", error.sqlstate, state)
    else:
        raise RuntimeError(f"not refused with {state}")


def name_of(connection, user):
    document = connection.execute("SELECT get_profile(%s::uuid)", [user]).fetchone()[0]
    return document and document["full_name"]


# One guard after the other


def test_reader_who_is_late(shards):
    """Who asked the router before a move comes to the shard after it: he is told to ask again, and then gets the document."""
    user, other = shards.sign_up(), shards.sign_up()
    shards.move(user, 0)
    with shards.connect() as late:
        late.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        expect("before", name_of(late, user), "first")
        shards.move(user, 1)
        refused(AGAIN, lambda: name_of(late, user))
        late.execute("ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ")
        expect("again", name_of(late, user), "first")
        shards.move(user, 2)
        refused(AGAIN, lambda: late.execute("SELECT * FROM get_profiles(%s::uuid[])", [[other, user]]))
        late.execute("ROLLBACK")
        expect("again", name_of(late, user), "first")
        # And home, where he was before.
        shards.move(user, 0)
        expect("home", name_of(late, user), "first")
    expect("on which shards", shards.where(user), [0])


def test_writer_who_is_late(shards):
    """A change that was sent before a move does nothing after it; a change that is under way is waited for, and moves along."""
    user = shards.sign_up()
    shards.move(user, 0)
    with shards.connect() as late:
        late.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        name_of(late, user)
        shards.move(user, 1)
        refused(AGAIN, lambda: late.execute("SELECT rename(%s::uuid, 'lost')", [user]))
        late.execute("ROLLBACK")
        expect("not lost, and not written", name_of(late, user), "first")
        with shards.connect("shard1", shards.cluster.user) as writer:
            writer.execute("BEGIN")
            writer.execute("SELECT shard.rename(%s::uuid, 'second')", [user])
            mover = threading.Thread(target=shards.move, args=(user, 2))
            mover.start()
            wait_for(shards.cluster, "postgres", "the move waits", "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
            expect("a reader does not wait", name_of(late, user), "first")
            writer.execute("COMMIT")
            mover.join()
        expect("moved along", name_of(late, user), "second")
        with shards.connect("shard2", shards.cluster.user) as writer:
            writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            refused("25000", lambda: writer.execute("SELECT shard.rename(%s::uuid, 'third')", [user]))
    expect("on which shards", shards.where(user), [2])


def test_sign_up_that_is_late(shards):
    """Who signs up by a map from before his bucket was moved is told to do it again, and nobody signs up twice."""
    user = str(uuid.uuid4())
    bucket, source = shards.router(f"SELECT router.bucket_of('{user}'), router.shard_of('{user}')").split("|")
    target = (int(source) + 1) % 3
    with shards.connect() as late:
        late.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        name_of(late, user)
        shards.router(f"CALL router.move_bucket({bucket}, {target})")
        sign_up = lambda: late.execute("SELECT sign_up(%s::uuid, 'late@example.com', 'first')", [user])
        refused(AGAIN, sign_up)
        late.execute("ROLLBACK")
        expect("nowhere", shards.where(user), [])
        sign_up()
        expect("on which shards", shards.where(user), [target])
        late.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        name_of(late, user)
        shards.move(user, int(source))
        refused(AGAIN, lambda: late.execute("SELECT sign_up(%s::uuid, 'another@example.com', 'first')", [user]))
        late.execute("ROLLBACK")
        refused("23505", sign_up)
    expect("on which shards", shards.where(user), [int(source)])
    shards.router(f"CALL router.move_bucket({bucket}, {source})")
    expect("apart", shards.router(f"SELECT count(*) FROM router.apart WHERE user_id = '{user}'"), 0)


def test_bucket_and_user_at_once(shards):
    """A user who comes home while his bucket goes elsewhere is found afterwards."""
    user = shards.sign_up()
    bucket, home = (int(n) for n in shards.router(f"SELECT router.bucket_of('{user}'), router.shard_of('{user}')").split("|"))
    target = (home + 1) % 3
    shards.move(user, (home + 2) % 3)
    with shards.connect(f"shard{target}", shards.cluster.user) as holder:
        # move_bucket has listed the bucket's users when it comes to this row.
        holder.execute("BEGIN")
        holder.execute("INSERT INTO shard.bucket AS b VALUES (%s, false, 0) ON CONFLICT (bucket) DO UPDATE SET open = b.open", [bucket])
        # It may find the user moved by the other one when it comes to him: then it is told so.
        moves = [threading.Thread(target=shards.cluster.psql, args=("router", "-c", f"CALL router.{move}"), kwargs={"capture_output": True})
                 for move in (f"move_bucket({bucket}, {target})", f"move_user('{user}', {home})")]  # fmt: skip
        moves[0].start()
        wait_for(shards.cluster, "postgres", "it waits", "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
        moves[1].start()
        moves[1].join(0.5)
        holder.execute("COMMIT")
        for move in moves:
            move.join()
    shards.router(f"CALL router.go_on('{user}')")
    expect("the router sends there", [shards.routed(user)], shards.where(user))
    with shards.connect() as web:
        expect("found", name_of(web, user), "first")


def test_many(shards):
    """get_profiles of nobody, of NULL, and of one id twice."""
    user = shards.sign_up()
    asked = f"SELECT coalesce(user_id::text, 'null') || coalesce(profile ->> 'full_name', '-') FROM get_profiles({{}})"
    for ids, wanted in [
        ("'{}'", []),
        ("'{NULL}'", ["null-"]),
        (f"ARRAY['{user}', NULL, '{EXAMPLE}', '{user}']::uuid[]", [f"{user}first", "null-", f"{EXAMPLE}-", f"{user}first"]),
    ]:
        expect(ids, shards.router(asked.format(ids)).split(), wanted)


def test_parts_that_are_late(shards):
    """A part of a move that arrives when the move is over, called off or followed by another one does nothing."""
    user = shards.sign_up()
    shards.move(user, 0)
    with shards.connect(user=shards.cluster.user) as router:
        # Cut short when the copy is there, and called off.
        router.execute("INSERT INTO router.move VALUES (%s, nextval('router.move_number'), 0, 1, 'copying')", [user])
        number = router.execute("SELECT number FROM router.move WHERE user_id = %s", [user]).fetchone()[0]
        has = shards.shard(0, f"SELECT shard.leave('{user}', {number})")
        expect("arrived", shards.shard(1, f"SELECT shard.arrive('{user}', {number}, $has${has}$has$)"), "t")
        expect("both have him", shards.where(user), [0, 1])
        refused(AGAIN, lambda: router.execute("SELECT rename(%s::uuid, 'lost')", [user]))
        expect("read meanwhile", name_of(router, user), "first")
        refused("55006", lambda: router.execute("CALL router.move_user(%s, 2)", [user]))
        router.execute("CALL router.call_off(%s)", [user])
        expect("on which shards", shards.where(user), [0])
        router.execute("SELECT rename(%s::uuid, 'second')", [user])

        def late(part, shard, *values):
            with shards.connect(f"shard{shard}", shards.cluster.user) as there:
                there.execute(f"SELECT shard.{part}({', '.join(['%s'] * (2 + len(values)))})", [user, number, *values])

        refused(AGAIN, lambda: late("arrive", 1, has))
        refused(AGAIN, lambda: late("leave", 0))
        # The first word of a move that is called off comes while that is being said.
        other = shards.sign_up()
        for home in (0, 1):  # he has been moved before, so that what is known of him is there
            shards.move(other, home)
        number = router.execute("SELECT nextval('router.move_number')").fetchone()[0]
        with shards.connect(f"shard{home}", shards.cluster.user) as ends:
            ends.execute("BEGIN")
            ends.execute("SELECT shard.resume(%s::uuid, %s)", [other, number])
            said = []
            comes = threading.Thread(target=lambda: said.append(shards.cluster.psql(f"shard{home}", "-c", f"SELECT shard.leave('{other}', {number})", capture_output=True).stderr))
            comes.start()
            wait_for(shards.cluster, "postgres", "it waits", "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
            ends.execute("COMMIT")
            comes.join()
        expect("refused", "is over, or not the one" in said[0], True)
        router.execute("SELECT rename(%s::uuid, 'second')", [other])
        # Cut short when everybody is sent to the other one already.
        router.execute("INSERT INTO router.move VALUES (%s, nextval('router.move_number'), 0, 1, 'copying')", [user])
        first, number = number, router.execute("SELECT number FROM router.move WHERE user_id = %s", [user]).fetchone()[0]
        has = shards.shard(0, f"SELECT shard.leave('{user}', {number})")
        shards.shard(1, f"SELECT shard.arrive('{user}', {number}, $has${has}$has$)")
        router.execute("BEGIN; UPDATE router.move SET state = 'moved'")
        router.execute("DELETE FROM router.apart WHERE user_id = %s", [user])
        router.execute("INSERT INTO router.apart SELECT %(u)s, 1 WHERE router.shard_of(%(u)s) <> 1", {"u": user})
        router.execute("COMMIT")
        router.execute("CALL router.call_off(%s)", [user])
        expect("gone on with, as it was too late to call it off", shards.where(user), [1])
        router.execute("SELECT rename(%s::uuid, 'third')", [user])
        for part, shard in [("retract", 1), ("resume", 0), ("settle", 1), ("clear", 0)]:
            late(part, shard)
        late("arrive", 1, has)
        number = first
        for part, shard in [("retract", 1), ("resume", 0), ("settle", 1), ("clear", 0), ("clear", 1)]:
            late(part, shard)
        refused(AGAIN, lambda: late("arrive", 1, has))
        refused(AGAIN, lambda: late("arrive", 0, has))
        expect("nothing has come of them", (name_of(router, user), shards.where(user)), ("third", [1]))
        router.execute("SELECT rename(%s::uuid, 'fourth')", [user])
        # What is open to those who sign up, too.
        bucket = shards.router(f"SELECT router.bucket_of('{user}')")
        home = int(shards.router(f"SELECT shard FROM router.bucket WHERE bucket = {bucket}"))
        for target in ((home + 1) % 3, home):
            router.execute("CALL router.move_bucket(%s, %s)", [bucket, target])
        shards.shard(home, f"SELECT shard.open({bucket}, {first}, false)")
        expect("still open", shards.shard(home, f"SELECT open FROM shard.bucket WHERE bucket = {bucket}"), "t")


def test_plans_that_are_late(shards):
    """A user is not taken to a shard that is behind in plans and roles; what has come there changes documents at once, and they
    are served from the cache again after the next refresh."""
    user = shards.sign_up()
    shards.move(user, 0)
    shards.router(f"SELECT subscribe('{user}', 'team', 'active', '{UNTIL}'), set_roles('{user}', '{{admin}}')")
    shards.shard(1, "ALTER SUBSCRIPTION shard1 DISABLE")
    shards.cluster.sql("dimensions", "UPDATE dimension.subscription_plan SET ai_daily_limit = 77 WHERE id = 'team'; INSERT INTO dimension.role (name, permissions) VALUES ('new', '[7]')")
    shards.caught_up(0)
    shards.router(f"SELECT set_roles('{user}', '{{new}}')")
    moved = threading.Thread(target=shards.move, args=(user, 1))
    moved.start()
    time.sleep(0.5)
    expect("not yet", (moved.is_alive(), shards.where(user)), (True, [0]))
    document = "SELECT d ->> 'ai_daily_limit', d -> 'roles' -> 0 ->> 'name' FROM get_profile('{}') AS d".format(user)
    expect("meanwhile", shards.router(document), "77|new")
    shards.shard(1, "ALTER SUBSCRIPTION shard1 ENABLE")
    moved.join()
    expect("moved", (shards.router(document), shards.where(user)), ("77|new", [1]))
    for number in (1, 2):
        shards.caught_up(number)
        shards.cluster.sql(f"shard{number}", "CALL profile_cache.refresh()")
    served = f"SELECT profile_cache.explain('{user}') ->> 'served_from'"
    expect("served from", shards.shard(1, served), "cache")
    shards.cluster.sql("dimensions", "UPDATE dimension.role SET permissions = '[8]' WHERE name = 'new'")
    shards.caught_up(1)
    expect("at once", shards.router(f"SELECT get_profile('{user}') -> 'roles' -> 0 -> 'permissions'"), "[8]")
    expect("verify", shards.shard(1, VERIFY), 0)
    shards.cluster.sql("shard1", "CALL profile_cache.refresh()")
    expect("served from", shards.shard(1, served), "cache")
    for change in ("DELETE FROM dimension.role", "TRUNCATE dimension.role", "UPDATE dimension.role SET id = id + 100"):
        with shards.connect("dimensions", shards.cluster.user) as editor:
            refused("23001", lambda: editor.execute(change))


def test_rights(shards):
    """The app may read, sign up and change users, on the router and on the shards, and nothing else."""
    user = shards.sign_up()
    with shards.connect() as router, shards.connect(f"shard{shards.routed(user)}") as shard:
        for connection, sql in [
            (router, f"CALL router.move_user('{user}', 0)"),
            (router, f"SELECT on_shard.leave(0, '{user}', 1)"),
            (router, "DELETE FROM router.apart"),
            (shard, f"SELECT shard.leave('{user}', 1)"),
            (shard, "SELECT * FROM user_profile"),
            (shard, "SELECT * FROM dimension.role"),
        ]:
            refused("42501", lambda: connection.execute(sql))
        expect("reads", name_of(router, user), "first")
    may = "SELECT string_agg(oid::regproc::text, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = '{}'::regnamespace AND has_function_privilege('web', oid, 'EXECUTE')"
    app = ["get_profile", "get_profiles", "rename", "set_roles", "sign_up", "subscribe"]
    expect("on a shard", shards.shard(0, may.format("shard")).split(), [f"shard.{name}" for name in app])
    expect("on the router", shards.router(may.format("public")).split(), app)
    expect("steps of a move", shards.router(may.format("on_shard")), "")


# All at random


class History:
    """What one user's writer has sent and been told is written, of each field: (value, sent, done)."""

    def __init__(self):
        self.fields = {"name": [], "plan": [("free", 0, 0)], "roles": [((), 0, 0)]}

    def allowed(self, field, began):
        """What a read that began then and ends now may show. Asked as soon as it ends."""
        values = list(self.fields[field])
        first = max(i for i, (_, _, done) in enumerate(values) if done is not None and done <= began)
        return [value for value, _, _ in values[first:]]

    def last(self, field):
        return self.fields[field][-1][0]


def seen(document):
    return {"name": document["full_name"], "plan": document["subscription_plan"], "roles": tuple(r["name"] for r in document["roles"])}


class Town:
    """Writers, readers, an editor, refreshes, movers and somebody who kills those, for some seconds."""

    def __init__(self, shards, seed):
        self.shards, self.users, self.stop, self.failures = shards, {}, threading.Event(), []
        self.quiet = threading.Event()
        self.seed, self.counts, self.lock = seed, dict.fromkeys(("writes", "reads", "many", "edits", "moves", "kills", "called off", "again", "mover again"), 0), threading.Lock()
        self.movers, self.permissions, self.limits = {}, {}, {}

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def run(self, seconds, meanwhile=None):
        work = [self.move, self.move, self.write, self.write, self.write, self.read, self.read, self.edit, self.refresh, self.kill]
        self.stop.clear()
        self.quiet.clear()
        threads = [threading.Thread(target=self.guarded, args=(do, random.Random(f"{self.seed} {i} {len(self.users)}"))) for i, do in enumerate(work)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        try:
            if meanwhile:
                meanwhile()
            while time.monotonic() < end and not self.failures:
                time.sleep(0.05)
        finally:
            self.stop.set()
            for thread in threads[2:]:
                thread.join()
            # Movers last: who is told to do it again needs somebody who ends the move.
            self.quiet.set()
            for thread in threads[:2]:
                thread.join()
        if self.failures:
            raise self.failures[0]

    def guarded(self, do, rng):
        try:
            do(rng)
        except Exception as error:
            self.failures.append(error)
            self.stop.set()

    def again(self, execute):
        """Runs a statement again for as long as it is told to: the rule of the page."""
        began = time.monotonic()
        while True:
            try:
                return execute()
            except psycopg.errors.SerializationFailure as told:
                self.count("again")
                if time.monotonic() > began + 30:
                    raise Failed(f"told to do it again without end: {told}\n{self.shards.router('SELECT * FROM router.move')}")
                time.sleep(0.002)

    def some(self, rng):
        while not self.users:
            time.sleep(0.01)
        return rng.choice(list(self.users.items()))

    # The app

    def write(self, rng):
        mine = []
        with self.shards.connect() as web:
            while not self.stop.is_set():
                if len(mine) < 20 or rng.random() < 0.05:
                    user, history = str(uuid.UUID(int=rng.getrandbits(128))), History()
                    self.change(web, history, "name", "0", "SELECT sign_up(%s::uuid, %s, %s)", user, f"{user}@example.com", "0")
                    mine.append((user, history))
                    self.users[user] = history
                    continue
                user, history = rng.choice(mine)
                what = rng.choice(["name", "plan", "roles"])
                if what == "name":
                    name = str(len(history.fields["name"]))
                    self.change(web, history, "name", name, "SELECT rename(%s::uuid, %s)", user, name)
                elif what == "plan":
                    plan = rng.choice(PLANS)
                    self.change(web, history, "plan", plan, "SELECT subscribe(%s::uuid, %s, 'active', %s)", user, plan, UNTIL)
                else:
                    roles = tuple(sorted(rng.sample(ROLES, rng.randrange(3))))
                    self.change(web, history, "roles", roles, "SELECT set_roles(%s::uuid, %s)", user, list(roles))

    def change(self, web, history, field, value, sql, *values):
        values_of = history.fields[field]
        values_of.append((value, time.monotonic(), None))
        self.again(lambda: web.execute(sql, values))
        values_of[-1] = (*values_of[-1][:2], time.monotonic())
        self.count("writes")

    def read(self, rng):
        with self.shards.connect() as web:
            while not self.stop.is_set():
                if rng.random() < 0.7:
                    user, history = self.some(rng)
                    began = time.monotonic()
                    document = self.again(lambda: web.execute("SELECT get_profile(%s::uuid)", [user]).fetchone()[0])
                    self.judge(user, history, document, began)
                    self.count("reads")
                else:
                    asked = [self.some(rng) for _ in range(rng.randrange(12))] + [(None, None), (str(uuid.uuid4()), None)]
                    rng.shuffle(asked)
                    began = time.monotonic()
                    ids = [user for user, _ in asked]
                    rows = self.again(lambda: web.execute("SELECT user_id::text, profile FROM get_profiles(%s::uuid[])", [ids]).fetchall())
                    if [row[0] for row in rows] != ids:
                        raise Failed(f"asked for {ids}, got {[row[0] for row in rows]}")
                    for (user, history), (_, document) in zip(asked, rows):
                        self.judge(user, history, document, began)
                    self.count("many")

    def judge(self, user, history, document, began):
        if history is None:
            if document is not None:
                raise Failed(f"somebody is there for {user}: {document}")
            return
        if document is None:
            raise Failed(f"nobody is there for {user}")
        for field, value in seen(document).items():
            if value not in (allowed := history.allowed(field, began)):
                raise Failed(f"{user}: {field} is {value}, and not one of {allowed}")

    # The others

    def edit(self, rng):
        with self.shards.connect("dimensions", self.shards.cluster.user) as editor:
            while not self.stop.is_set():
                number = rng.randrange(1000)
                if rng.random() < 0.5:
                    plan = rng.choice(PLANS)
                    editor.execute("UPDATE dimension.subscription_plan SET ai_daily_limit = %s WHERE id = %s", [number, plan])
                    self.limits[plan] = number
                else:
                    role = rng.choice(ROLES)
                    editor.execute("UPDATE dimension.role SET permissions = %s::jsonb WHERE name = %s", [f"[{number}]", role])
                    self.permissions[role] = [number]
                self.count("edits")
                time.sleep(0.1)

    def refresh(self, rng):
        while not self.stop.is_set():
            self.shards.cluster.sql(f"shard{rng.randrange(self.shards.count)}", "CALL profile_cache.refresh()")
            time.sleep(0.1)

    def move(self, rng):
        while not self.quiet.is_set():
            with contextlib.suppress(psycopg.OperationalError), self.shards.connect(user=self.shards.cluster.user) as mover:
                me = mover.info.backend_pid
                self.movers[me] = True
                try:
                    self.move_until_killed(rng, mover)
                finally:
                    del self.movers[me]

    def move_until_killed(self, rng, mover):
        while not self.quiet.is_set():
            try:
                left = mover.execute("SELECT user_id FROM router.move WHERE since < clock_timestamp() - interval '20 ms'").fetchall()
                if left:
                    way = rng.choice(["go_on", "go_on", "call_off"])
                    mover.execute(f"CALL router.{way}(%s)", [left[0][0]])
                    self.count("called off" if way == "call_off" else "moves")
                elif rng.random() < 0.9:
                    user, _ = self.some(rng)
                    mover.execute("CALL router.move_user(%s, %s)", [user, rng.randrange(self.shards.count)])
                    self.count("moves")
                else:
                    user, _ = self.some(rng)
                    mover.execute("CALL router.move_bucket(router.bucket_of(%s), %s)", [user, rng.randrange(self.shards.count)])
                    self.count("moves")
            except psycopg.Error as error:
                if mover.closed:
                    return
                if error.sqlstate not in MOVER_MEETS:
                    raise
                self.count("mover again")

    def kill(self, rng):
        with self.shards.connect(user=self.shards.cluster.user) as killer:
            while not self.stop.is_set():
                time.sleep(rng.random() * 0.4)
                if movers := list(self.movers):
                    how = rng.choice(["pg_terminate_backend", "pg_cancel_backend"])
                    killer.execute(f"SELECT {how}(%s)", [rng.choice(movers)])
                    self.count("kills")

    # When it is quiet

    def judge_all(self):
        """What is left is ended. Then each user is on one shard, that which the router names, and there is what was written last."""
        shards = self.shards
        for user in shards.router("SELECT user_id FROM router.move").split():
            shards.router(f"CALL router.go_on('{user}')")
        found = {}
        for number in range(shards.count):
            shards.caught_up(number)
            expect(f"verify on shard {number}", shards.shard(number, VERIFY), 0)
            with shards.connect(f"shard{number}", shards.cluster.user) as shard:
                for user, document in shard.execute("SELECT supabase_user_id::text, document FROM profile_document"):
                    if user in found:
                        raise Failed(f"{user} is on two shards: {found[user][0]} and {number}")
                    found[user] = (number, document)
            shards.cluster.sql(f"shard{number}", "CALL profile_cache.refresh()")
            expect(f"stale on shard {number}", shards.shard(number, "SELECT stale FROM profile_cache.status"), 0)
            expect(f"not served from the cache on shard {number}", shards.shard(number, "SELECT count(*) FROM user_profile WHERE profile_cache.explain(supabase_user_id) ->> 'served_from' <> 'cache'"), 0)
            expect(f"moves that shard {number} has not ended", shards.shard(number, "SELECT count(*) FROM shard.residence WHERE state IN ('leaving', 'arriving')"), 0)
        with shards.connect() as web:
            for user, history in self.users.items():
                if user not in found:
                    raise Failed(f"{user} is lost")
                number, document = found[user]
                if got := web.execute("SELECT get_profile(%s::uuid), router.shard_of(%s::uuid)", [user, user]).fetchone():
                    expect(f"{user}, by the router", got, (document, number))
                expect(user, seen(document), {field: history.last(field) for field in history.fields})
                if document["subscription_plan"] in self.limits:
                    expect("limit", document["ai_daily_limit"], self.limits[document["subscription_plan"]])
                for role in document["roles"]:
                    expect("permissions", role["permissions"], self.permissions.get(role["name"], role["permissions"]))


def test_town(shards, pytestconfig, say):
    """Everything at once, from a seed; then a fourth shard comes while it goes on."""
    town = Town(shards, pytestconfig.getoption("--seed"))
    town.run(8)
    town.judge_all()
    town.run(8, meanwhile=lambda: (shards.add_shard(), shards.spread()))
    town.judge_all()
    # Whom nobody has moved on his own account is at home.
    shards.spread()
    expect("buckets of the fourth", shards.router("SELECT count(*) FROM router.bucket WHERE shard = 3 AND bucket % 4 = 3"), 256)
    expect("apart of these", shards.router("SELECT count(*) FROM router.apart WHERE router.bucket_of(user_id) % 4 = 3"), 0)
    town.judge_all()
    if wanting := [what for what, number in town.counts.items() if number < 5]:
        raise Vacuous(f"too little of {wanting}: {town.counts}")
    say(f"{len(town.users)} users; " + ", ".join(f"{what} {number}" for what, number in town.counts.items()))


def test_page(shards):
    """What the page shows is in the files, and its commands work."""
    if shards.count == 3:
        shards.add_shard()
    user, files = shards.sign_up(), "".join(file.read_text() for file in HERE.glob("*.sql"))
    run = 0
    for language, body in re.findall(r"^<!-- no-test: tests/shards runs it -->\n```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        if body in files:
            continue
        run += 1
        if language == "sh":
            subprocess.run(["bash", "-euc", body.replace(EXAMPLE, user)], env=shards.cluster.env, check=True)
        elif "replication_slot" in body:
            shards.cluster.sql("dimensions", body.replace("shard0", "another") + "SELECT pg_drop_replication_slot('another')")
        else:
            shards.router(body.replace(EXAMPLE, user))
    expect("blocks that were run", run, 5)
    bucket = shards.router("SELECT shard FROM router.bucket WHERE bucket = 7")
    expect("moved", (shards.where(user), bucket), ([2], "3"))
    for sql in (f"CALL router.move_user('{user}', 4)", "CALL router.move_bucket(7, -1)"):
        with shards.connect(user=shards.cluster.user) as mover:
            refused("22023", lambda: mover.execute(sql))
