"""profile_cache.stats: each thing that is counted is made to happen, and is counted once, and nothing else with it.

The server has preloaded the library; what needs none, from PostgreSQL 17 on, is tried on the one that has not.
"""

import contextlib
import json

import pytest

from lib.cluster import Cluster, Server
from lib.filled import Session, expect, fill, wait_for

KEY = "md5('user{}')::uuid"
REASONS = ["not_cached", "expired", "pending", "in_transaction", "from_future", "disabled", "unhealthy", "row_security"]
COUNTED = ["hits", "misses", "computed_at_commit", "computed_by_refresh", "computed_by_worker", "pending_keys", "pending_epochs",
           "failures", "locks_not_had", "notifications"]  # fmt: skip
# What explain says, and under which key of miss_reasons it is counted.
UNDER = {
    "not cached": "not_cached", "other attachment": "not_cached", "expired": "expired", "pending": "pending", "from the future": "from_future",
    "changed in this transaction": "in_transaction", "disabled": "disabled", "unhealthy": "unhealthy",
}  # fmt: skip


@pytest.fixture(scope="module")
def counting(pytestconfig, install):
    major, library = pytestconfig.getoption("--pg"), pytestconfig.getoption("--library")
    install(major)

    class Preloaded(Cluster):
        def start(self, data="data", port=None, **more):
            super().start(data, port, **({"shared_preload_libraries": "profile_cache"} | more))

    with Preloaded(major, library) as cluster:
        yield cluster


@pytest.fixture
def database(counting, request):
    """The name of a filled database, the test's own."""
    name = request.node.name.removeprefix("test_")
    counting.create(name)
    fill(counting, name)
    return name


def stats(server, database):
    """All that is counted, by its name; the reasons among them."""
    row = json.loads(server.sql(database, "SELECT to_jsonb(s) FROM profile_cache.stats AS s"))
    return {name: row[name] for name in COUNTED} | {name: row["miss_reasons"][name] for name in REASONS}


@contextlib.contextmanager
def counts(server, database, **wanted):
    """What is done meanwhile counts this, and nothing else. It has been handed over when the transactions are over: not later."""
    before = stats(server, database)
    yield
    after = stats(server, database)
    expect("counted", {name: after[name] - before[name] for name in after if after[name] != before[name]}, wanted)


def reason(do, user):
    return do(f"SELECT profile_cache.explain({KEY.format(user)}) ->> 'reason'")


def read(do, user):
    return do(f"SELECT get_profile({KEY.format(user)}) IS NOT NULL")


def test_reasons(counting, database):
    """A miss for each reason that explain knows: counted once, under its key; explain, verify and status count nothing."""
    server = counting

    def sql(text):
        return server.sql(database, text)

    def missed(do, user, wanted):
        with counts(server, database):
            expect("reason", reason(do, user), wanted)
        with counts(server, database, misses=1, **{UNDER[wanted]: 1}):
            expect("read", read(do, user), "t")

    with counts(server, database, hits=1):
        expect("read", read(sql, 1), "t")
    with counts(server, database, hits=3):
        sql(f"SELECT count(*) FROM get_profiles(ARRAY[{KEY.format(1)}, {KEY.format(2)}, {KEY.format(1)}, gen_random_uuid(), NULL])")
    with counts(server, database):
        sql("SELECT get_profile(gen_random_uuid())")
        sql("SELECT count(*) FROM profile_cache.verify()")
        sql("SELECT * FROM profile_cache.status")
    sql("SELECT profile_cache.invalidate(md5('user1')::uuid)")
    missed(sql, 1, "pending")
    with counts(server, database, hits=1, misses=2, pending=2):
        sql(f"SELECT count(*) FROM get_profiles(ARRAY[{KEY.format(1)}, {KEY.format(2)}, {KEY.format(1)}])")
    sql("SET profile_cache.max_immediate = 0; UPDATE user_profile SET phone = '1' WHERE id = 2")
    missed(sql, 2, "not cached")
    sql("CALL profile_cache.refresh()")
    sql("UPDATE user_subscription SET current_period_end = clock_timestamp() + interval '1 s', status = 'active' WHERE user_id = 8")
    wait_for(server, database, "it expires", f"SELECT profile_cache.explain({KEY.format(8)}) ->> 'reason'", "expired")
    missed(sql, 8, "expired")
    missed(lambda text: sql(f"SET profile_cache.enabled = off; {text}"), 4, "disabled")
    with Session(server, database) as session:
        session.do("BEGIN; SELECT FROM user_profile")
        sql("UPDATE user_profile SET phone = '2' WHERE id = 5")
        expect("reason", reason(session.do, 5), "from the future")
        # What a transaction has counted is handed over when it ends, however it ends.
        with counts(server, database):
            expect("read", read(session.do, 5), "t")
        with counts(server, database, misses=1, from_future=1):
            session.do("ROLLBACK")
        with counts(server, database, misses=1, in_transaction=1):
            session.do("BEGIN; UPDATE user_profile SET phone = '3' WHERE id = 6")
            expect("reason", reason(session.do, 6), "changed in this transaction")
            expect("read", read(session.do, 6), "t")
            session.do("ROLLBACK")
    sql("ALTER TABLE role DISABLE TRIGGER profile_cache_before")
    missed(sql, 7, "unhealthy")


def test_row_security(counting, database):
    """The look under row security counts beside hit and miss; of what it hides nothing else counts."""
    sql = lambda text: counting.sql(database, text)  # noqa: E731
    sql("CREATE ROLE stats_reader; GRANT SELECT ON user_profile TO stats_reader; ALTER TABLE user_profile ENABLE ROW LEVEL SECURITY")
    sql("CREATE POLICY few ON user_profile FOR SELECT TO stats_reader USING (id < 10)")
    as_reader = lambda text: sql(f"SET ROLE stats_reader; {text}")  # noqa: E731
    with counts(counting, database, hits=1, row_security=1):
        expect("read", read(as_reader, 1), "t")
    with counts(counting, database, row_security=1):
        expect("read", read(as_reader, 11), "f")
    with counts(counting, database, hits=2, row_security=3):
        as_reader(f"SELECT count(*) FROM get_profiles(ARRAY[{KEY.format(1)}, {KEY.format(2)}, {KEY.format(11)}])")
    with counts(counting, database):
        reason(as_reader, 1)
    with counts(counting, database, misses=1, disabled=1, row_security=1):
        read(lambda text: as_reader(f"SET profile_cache.enabled = off; {text}"), 1)
    sql("DROP OWNED BY stats_reader; DROP ROLE stats_reader")


def test_writes(counting, database):
    """Documents computed at commit and by refresh, what is left pending, locks that were not had, notifications."""
    server = counting

    def sql(text):
        return server.sql(database, text)

    with counts(server, database, computed_at_commit=2):
        sql("UPDATE user_profile SET phone = '1' WHERE id IN (1, 2)")
    # Notified is the transaction's one change.
    with counts(server, database, computed_at_commit=1, notifications=1):
        sql("SET profile_cache.notify = on; UPDATE user_profile SET phone = '2' WHERE id = 1")
    with counts(server, database, pending_epochs=1):
        sql("UPDATE role SET permissions = '[1]' WHERE name = 'member'")
    before = stats(server, database)["computed_by_refresh"]
    sql("CALL profile_cache.refresh()")
    members = int(sql("SELECT count(DISTINCT user_id) FROM user_role AS u JOIN role AS r ON r.id = u.role_id WHERE r.name = 'member'"))
    expect("computed by refresh", stats(server, database)["computed_by_refresh"] - before, members)
    change = "UPDATE user_subscription SET status = CASE status WHEN 'active' THEN 'trialing' ELSE 'active' END WHERE user_id = 4"
    with Session(server, database) as session, counts(server, database, pending_keys=1, locks_not_had=1):
        session.do("BEGIN; SELECT FROM user_profile WHERE id = 4 FOR UPDATE")
        sql(change)
    with counts(server, database, computed_by_refresh=1):
        sql("CALL profile_cache.refresh()")
    with Session(server, database) as session:
        session.do("BEGIN; LOCK TABLE role")
        with counts(server, database, pending_keys=1, locks_not_had=1):
            sql(change)
        with counts(server, database, locks_not_had=1):
            sql("SET lock_timeout = '10s'; CALL profile_cache.refresh()")
    took = sql("SELECT computed_at_commit_ms > 0 AND computed_at_commit_ms < 60000 AND computed_on_read_ms >= 0 FROM profile_cache.stats")
    expect("milliseconds", took, "t")


def test_failures(counting, request):
    """A document that cannot be computed, at commit and again by each refresh that tries it; a read of it counts before it fails."""
    database = "failures"
    counting.create(database)
    sql = lambda text: counting.sql(database, text)  # noqa: E731
    sql("CREATE TABLE user_profile (supabase_user_id uuid PRIMARY KEY, n int); CREATE EXTENSION profile_cache")
    sql("CREATE VIEW document AS SELECT supabase_user_id, jsonb_build_object('x', 10 / n) AS document FROM user_profile")
    sql("SELECT profile_cache.attach(document => 'document')")
    sql("CALL profile_cache.refresh()")
    with counts(counting, database, failures=1):
        sql("INSERT INTO user_profile SELECT gen_random_uuid(), 0")
    ms = float(sql("SELECT computed_on_read_ms FROM profile_cache.stats"))
    with counts(counting, database, misses=1, not_cached=1):
        done = counting.psql(database, "-c", "SELECT get_profile(supabase_user_id) FROM user_profile", capture_output=True)
        expect("it fails", "division by zero" in done.stderr, True)
    expect("its time counts", float(sql("SELECT computed_on_read_ms FROM profile_cache.stats")) > ms, True)


def test_worker(counting, database):
    """What the background worker computes is told from what others' refresh does."""
    before = stats(counting, database)
    counting.sql("postgres", f"ALTER SYSTEM SET profile_cache.databases = '{database}';\nSELECT pg_reload_conf();")
    try:
        counting.sql(database, "SELECT profile_cache.invalidate(md5('user1')::uuid)")
        wait_for(counting, database, "the worker", "SELECT count(*) FROM profile_cache.pending", "0")
        after = stats(counting, database)
    finally:
        counting.sql("postgres", "ALTER SYSTEM RESET profile_cache.databases;\nSELECT pg_reload_conf();")
    expect("by the worker", after["computed_by_worker"] - before["computed_by_worker"], 1)
    expect("by refresh", after["computed_by_refresh"], before["computed_by_refresh"])


def test_hand_over(counting, database):
    """A session that is killed in a transaction has handed over what it counted, and so has one that stays idle."""
    with Session(counting, database) as session:
        pid = session.do("SELECT pg_backend_pid()")
        with counts(counting, database, hits=1):
            read(session.do, 1)
        with counts(counting, database, hits=2):
            session.do("BEGIN")
            read(session.do, 1)
            read(session.do, 2)
            counting.sql(database, f"SELECT pg_terminate_backend({pid}, 10000)")


def test_databases_and_reset(counting, database):
    """Each database has its own; a reset is one's alone; a restart begins anew."""
    other = f"{database}_other"
    counting.create(other)
    fill(counting, other)
    with counts(counting, database), counts(counting, other, hits=1):
        read(lambda text: counting.sql(other, text), 1)
    counting.sql(database, "SELECT count(get_profile(supabase_user_id)) FROM user_profile")
    since = counting.sql(database, "SELECT stats_since FROM profile_cache.stats")
    with counts(counting, other):
        counting.sql(database, "SELECT profile_cache.stats_reset()")
    expect("all zero", set(stats(counting, database).values()), {0})
    expect("since then", counting.sql(database, f"SELECT stats_since > '{since}' AND stats_since <= now() FROM profile_cache.stats"), "t")
    counting.stop("fast")
    counting.start()
    expect("all zero", set(stats(counting, database).values()), {0})


def test_places(counting, database):
    """A database that is dropped leaves its place to the next, which begins at zero, as does a copy of one that has counted."""
    for _ in range(3):
        counting.create("passing", database)
        expect("all zero", set(stats(counting, "passing").values()), {0})
        with counts(counting, "passing", hits=1), counts(counting, database):
            read(lambda text: counting.sql("passing", text), 1)
        counting.drop("passing")


def test_standby(counting, database):
    """A standby counts what is read there, in memory of its own: from PostgreSQL 17 on also in that of a segment."""
    counting.run_server_command(counting.bindir / "pg_basebackup", "-D", counting.dir / "standby", "-R", "-X", "stream", "-c", "fast", "--no-sync")
    preloaded = {"shared_preload_libraries": ""} if int(counting.major) >= 17 else {}
    counting.start("standby", port="5433", **preloaded)
    try:
        standby = Server(counting.bindir / "pg_config", dict(counting.env, PGPORT="5433"))
        expect("in recovery", standby.sql(database, "SELECT pg_is_in_recovery()"), "t")
        with counts(counting, database), counts(standby, database, hits=1):
            read(lambda text: standby.sql(database, text), 1)
        with counts(standby, database, misses=1, disabled=1):
            read(lambda text: standby.sql(database, f"SET profile_cache.enabled = off; {text}"), 1)
        standby.sql(database, "SELECT profile_cache.stats_reset()")
        expect("all zero", set(stats(standby, database).values()), {0})
    finally:
        counting.stop("immediate", "standby")


TRACK = "SET profile_cache.track = on; "  # tests/lib/cluster.py switches it off where nothing is counted
WARNED = f"{TRACK}SELECT count(*) FROM profile_cache.status AS s, unnest(s.warnings) AS w WHERE w LIKE 'nothing is counted%{{}}%shared_preload_libraries%'"
NULLS = f"{TRACK}SELECT s IS NULL FROM profile_cache.stats AS s"


def test_not_preloaded(server, pytestconfig, install):
    """Without preloading: from PostgreSQL 17 on the same; before, NULLs, and a warning that says what to do."""
    database = "stats_not_preloaded"
    server.fresh("servers", database)
    fill(server, database)
    if int(pytestconfig.getoption("--pg")) < 17:
        expect("reads go on", server.sql(database, f"{TRACK}SELECT count(get_profile(supabase_user_id)) FROM user_profile"), 300)
        expect("nulls", server.sql(database, NULLS), "t")
        expect("warned", server.sql(database, WARNED.format("PostgreSQL 15 and 16")), 1)
        return
    with counts(server, database, hits=1):
        read(lambda text: server.sql(database, text), 1)
    with counts(server, database, misses=1, disabled=1):
        read(lambda text: server.sql(database, f"SET profile_cache.enabled = off; {text}"), 1)
    # Not inside a parallel query, where no segment can be attached: when its transaction ends.
    with counts(server, database, hits=300):
        server.sql(database, "SET debug_parallel_query = on; SELECT count(get_profile(supabase_user_id)) FROM user_profile")
    expect("warned", server.sql(database, WARNED.format("")), 0)
    without_memory(pytestconfig)


def without_memory(config):
    """Where no segment can be made, reads and writes go on as if nobody counted, and it is said. Later ones may be luckier."""
    database = "no_memory"
    with Cluster(config.getoption("--pg"), config.getoption("--library")) as server:
        server.stop("fast")
        server.start(dynamic_shared_memory_type="mmap", max_parallel_workers="0")
        server.create(database)
        segments = server.dir / "data/pg_dynshmem"
        segments.chmod(0o500)
        fill(server, database)
        expect("reads go on", server.sql(database, "SELECT count(get_profile(supabase_user_id)) FROM user_profile"), 300)
        with Session(server, database) as session:
            expect("so do writes", session.do("UPDATE user_profile SET phone = '1' WHERE id = 1; SELECT get_profile(md5('user1')::uuid) ->> 'phone'"), "1")
        expect("nulls", server.sql(database, NULLS), "t")
        expect("warned", server.sql(database, WARNED.format("dynamic shared memory")), 1)
        segments.chmod(0o700)
        expect("nulls", server.sql(database, NULLS), "f")
