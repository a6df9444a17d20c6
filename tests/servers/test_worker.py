"""The background worker: a server that has preloaded the library, and what others found to go wrong with such workers.

Each test has a database of its own, which it gives to the worker when it wants to. A wait has a limit that no slow machine
reaches; nothing is expected after a sleep. After each test the server's log must not say that a worker ended but by itself.
"""

import contextlib
import os
import re
import signal
import subprocess
import time

import pytest

from lib.cluster import Cluster
from lib.filled import DEMO, VERIFY, WRONG, Session, expect, fill, survive, wait_for

WORKERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'profile_cache worker'"
LAUNCHERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'profile_cache launcher'"
STATUS = "SELECT worker FROM profile_cache.status"
HEALTH = "SELECT state || ': ' || detail FROM profile_cache.health() WHERE check_name = 'worker'"
FRESH = "SELECT stale = 0 AND pending_keys = 0 AND pending_epochs = 0 FROM profile_cache.status"
# How soon it leaves a database that somebody wants for himself: PostgreSQL itself waits five seconds.
SOON = 4

# A document that is computed once the advisory lock 42 can be shared: who holds it keeps the worker computing.
GATED = """CREATE FUNCTION gate(lock bigint) RETURNS int IMMUTABLE LANGUAGE internal AS 'pg_advisory_xact_lock_shared_int8';
CREATE VIEW gated AS SELECT supabase_user_id, jsonb_build_object('id', id, 'n', gate(42 + 0 * id)) AS document FROM user_profile;
"""


class Preloaded(Cluster):
    def start(self, data="data", port=None, **more):
        super().start(data, port, **({"shared_preload_libraries": "profile_cache"} | more))


@pytest.fixture(scope="module")
def preloaded(pytestconfig, install):
    major, library = pytestconfig.getoption("--pg"), pytestconfig.getoption("--library")
    install(major)
    with Preloaded(major, library) as cluster:
        yield cluster


def listed(server, *names):
    """These are the worker's databases."""
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names).replace("'", "''")
    server.sql("postgres", f"ALTER SYSTEM SET profile_cache.databases = '{quoted}';\nSELECT pg_reload_conf();")


@pytest.fixture
def database(preloaded, request):
    """The name of an empty database, the test's own. Nobody's but its worker may run during the test."""
    name = request.node.name.removeprefix("test_")
    began = len(preloaded.log())
    preloaded.create(name)
    yield name
    if not preloaded.running():
        preloaded.start()
    preloaded.sql("postgres", "ALTER SYSTEM RESET profile_cache.databases;\nSELECT pg_reload_conf();")
    wait_for(preloaded, "postgres", "workers leave that are no longer listed", WORKERS, "0")
    log = preloaded.log()[began:]
    if bad := re.findall(r".*profile_cache worker.*exited with exit code.*|.*PANIC:.*|.*TRAP:.*", log):
        raise RuntimeError("\n".join(bad))
    if "kill" not in name and (bad := re.findall(r".*terminated by signal.*", log)):
        raise RuntimeError("\n".join(bad))


def of(database):
    return f"{WORKERS} AND datname = '{database}'"


def warm(server, database, users=300):
    """Filled, attached, and the worker's. With the index that says when the next document expires: nothing is looked for each minute."""
    fill(server, database, users)
    server.sql(database, "CREATE INDEX ON user_profile (cached_profile_valid_until)")
    listed(server, database)
    wait_for(server, database, "a slot", "SELECT worker IN ('idle', 'refreshing') FROM profile_cache.status")


def attached(server, database, users=300):
    """The same without a refresh: whose worker is there does that."""
    for file in ("tables.sql", "data.sql"):
        done = server.psql(database, "-v", f"users={users}", "-f", DEMO / file, capture_output=True)
        expect(f"psql's status for {file}", done.returncode, 0)
    server.sql(database, "CREATE EXTENSION profile_cache; SELECT profile_cache.attach();")


def fresh(server, database, wrong=WRONG):
    wait_for(server, database, "everything fresh", FRESH)
    expect("wrong", server.sql(database, wrong), 0)


class Gate:
    """Keeps the worker computing from when it is entered to when it is left."""

    def __init__(self, server, database):
        self.server, self.database = server, database
        self.session = Session(server, database)

    def __enter__(self):
        self.session.do("SELECT pg_advisory_lock(42)")
        return self

    def __exit__(self, *_):
        self.session.__exit__()

    def wait(self):
        """Until it is computing."""
        blocked = f"SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'profile_cache worker' AND datname = '{self.database}' AND wait_event = 'advisory'"
        wait_for(self.server, "postgres", "the worker computes", blocked)


def gated(server, database):
    """A database whose documents are computed through the gate."""
    fill(server, database)
    server.sql(database, GATED + "SELECT profile_cache.attach(document => 'gated');")
    listed(server, database)


def test_woken(preloaded, database):
    """B1: Whoever commits something pending wakes it, whatever it is, and in whatever way it comes. B2: nothing pending, nobody there."""
    warm(preloaded, database)
    for change in (
        "UPDATE role SET permissions = '[1]' WHERE name = 'member'",
        "SELECT profile_cache.invalidate(supabase_user_id) FROM user_profile WHERE id = 7",
        "SELECT profile_cache.invalidate_all()",
        "ALTER TABLE user_profile ADD COLUMN more text DEFAULT 'x'; SELECT profile_cache.attach()",
        "ALTER TABLE role RENAME COLUMN name TO named; ALTER TABLE role RENAME COLUMN named TO name",
        "SET profile_cache.max_immediate = 0; UPDATE user_subscription SET status = 'trialing' WHERE user_id < 10",
        "BEGIN; SAVEPOINT s; UPDATE role SET permissions = '[2]' WHERE name = 'member'; RELEASE s; COMMIT",
        "TRUNCATE user_role",
    ):
        # Both with the worker there and with nobody there.
        preloaded.sql(database, change)
        fresh(preloaded, database)
    wait_for(preloaded, "postgres", "nobody is connected to an idle database", of(database), "0")
    expect("status", preloaded.sql(database, STATUS), "idle")
    preloaded.sql(database, "UPDATE role SET permissions = '[3]' WHERE name = 'member'")
    fresh(preloaded, database)
    expect("verify", preloaded.sql(database, VERIFY), 0)


def test_commit_prepared(preloaded, database):
    """B1: Of a prepared transaction whoever commits it wakes the worker."""
    warm(preloaded, database)
    preloaded.sql(database, "BEGIN; UPDATE role SET permissions = '[1]' WHERE name = 'member'; PREPARE TRANSACTION 'p';")
    wait_for(preloaded, "postgres", "nobody is connected to an idle database", of(database), "0")
    preloaded.sql(database, "COMMIT PREPARED 'p'")
    fresh(preloaded, database)


def test_fills(preloaded, database):
    """B1: After attach and after a restore it fills without being asked, and a database that comes later is found."""
    preloaded.drop(database)
    listed(preloaded, database, "restored, \"by\" it")
    preloaded.create(database)
    attached(preloaded, database)
    fresh(preloaded, database)
    preloaded.sql(database, "SELECT profile_cache.invalidate(supabase_user_id) FROM user_profile WHERE id < 5")
    fresh(preloaded, database)
    other = 'restored, "by" it'
    preloaded.sql("postgres", "CREATE DATABASE \"restored, \"\"by\"\" it\" TEMPLATE template0")
    dump = subprocess.run([preloaded.bindir / "pg_dump", "-d", database], env=preloaded.env, text=True, capture_output=True, check=True)
    done = preloaded.psql(other, "-f", "-", input=dump.stdout, capture_output=True)
    expect("psql's status for the dump", (done.returncode, done.stderr), (0, ""))
    fresh(preloaded, other)
    preloaded.sql("postgres", "DROP DATABASE \"restored, \"\"by\"\" it\"")


def slowly(server, share):
    """It fills in many small steps, with this share of its time; None: as ever."""
    for name, value in (("batch_ms", 10), ("fill_share", share)):
        server.sql("postgres", f"ALTER SYSTEM SET profile_cache.{name} = {value}" if share else f"ALTER SYSTEM RESET profile_cache.{name}")
    server.sql("postgres", "SELECT pg_reload_conf()")


def test_missed(preloaded, database):
    """B4: What a reader had to compute comes first: a profile is stored while the pass is far from it."""
    fill(preloaded, database, 3000)
    slowly(preloaded, 1)
    try:
        last = preloaded.sql(database, "SELECT max(supabase_user_id::text) FROM user_profile")
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        listed(preloaded, database)
        wait_for(preloaded, database, "it fills", "SELECT count(*) = 1 FROM profile_cache.epoch_progress WHERE running")
        explained = f"SELECT profile_cache.explain('{last}') ->> 'served_from'"
        preloaded.sql(database, f"SELECT get_profile('{last}')")
        wait_for(preloaded, database, "the missed profile is stored", explained, "cache")
        behind = "SELECT stale > 500 FROM profile_cache.status"
        expect("others are not", preloaded.sql(database, behind), "t")
        # What nobody has is nobody's.
        preloaded.sql(database, "SELECT get_profile(gen_random_uuid())")
    finally:
        slowly(preloaded, None)
    fresh(preloaded, database)


def test_paced(preloaded, database):
    """B9: A fill leaves the app most of the time, and an edit does not wait for the fill's naps."""
    fill(preloaded, database, 3000)
    slowly(preloaded, 2)
    try:
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        listed(preloaded, database)
        wait_for(preloaded, database, "it fills", "SELECT count(*) = 1 FROM profile_cache.epoch_progress WHERE running AND listed IS NOT NULL")
        naps = "SELECT wait_event IS NOT DISTINCT FROM 'Extension' FROM pg_stat_activity WHERE backend_type = 'profile_cache worker'"
        seen = []
        for _ in range(40):
            seen.append(preloaded.sql("postgres", naps))
            time.sleep(0.02)
        if seen.count("t") < 25:
            raise RuntimeError(f"it naps {seen.count('t')} times of 40")
        preloaded.sql(database, "SELECT profile_cache.invalidate(supabase_user_id) FROM user_profile WHERE id = 7")
        wait_for(preloaded, database, "a key", "SELECT count(*) FROM profile_cache.pending_key", "0")
        expect("the fill goes on", preloaded.sql(database, "SELECT stale > 0 FROM profile_cache.status"), "t")
    finally:
        slowly(preloaded, None)
    fresh(preloaded, database)


def test_told_in_a_nap(preloaded, database):
    """B3: Whoever ends the worker while it naps, or wants the database in vain, does not end its work: it is begun again without
    anybody's commit. A cancel of nothing is nothing."""
    fill(preloaded, database, 3000)
    worker = f"FROM pg_stat_activity WHERE backend_type = 'profile_cache worker' AND datname = '{database}'"
    filling = "SELECT count(*) = 1 FROM profile_cache.epoch_progress WHERE running AND listed IS NOT NULL"
    slowly(preloaded, 1)
    began = len(preloaded.log())
    try:
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        listed(preloaded, database)
        for end in (f"SELECT pg_cancel_backend(pid) {worker}", f"SELECT pg_terminate_backend(pid) {worker}", f"CREATE DATABASE {database}_copy TEMPLATE {database}"):
            wait_for(preloaded, database, "it fills", filling)
            wait_for(preloaded, "postgres", "it naps", f"SELECT count(*) > 0 {worker} AND wait_event = 'Extension'")
            at = preloaded.sql("postgres", f"SELECT clock_timestamp() FROM ({end}) AS done" if end.startswith("SELECT") else end)
            wait_for(preloaded, "postgres", "it is there again", of(database), "1")
            if "cancel" in end:
                wait_for(preloaded, "postgres", "its next step", f"SELECT count(*) > 0 {worker} AND state_change > '{at}'")
        expect("not done yet", preloaded.sql(database, "SELECT stale > 0 FROM profile_cache.status"), "t")
        expect("errors of the worker", re.findall(r".*canceling statement.*", preloaded.log()[began:]), [])
    finally:
        slowly(preloaded, None)
    fresh(preloaded, database)


def test_owners(preloaded, database):
    """B2: Whoever may drop a database may do so by force, though the worker is another's process; and who may not drop or copy a
    database, or drop the extension, has no worker leave."""
    role = f"{database}_boss"
    preloaded.sql(database, f"CREATE ROLE {role} CREATEDB; CREATE ROLE {role}_nobody CREATEDB")
    fill(preloaded, database, 3000)
    preloaded.sql(database, f"ALTER DATABASE {database} SET role = {role}")
    slowly(preloaded, 1)
    worker = f"SELECT pid FROM pg_stat_activity WHERE backend_type = 'profile_cache worker' AND datname = '{database}'"
    try:
        preloaded.sql(database, "SET role = none; SELECT profile_cache.invalidate_all()")
        listed(preloaded, database)
        wait_for(preloaded, "postgres", "it fills", f"SELECT count(*) > 0 FROM ({worker} AND wait_event = 'Extension') AS w")
        pid = preloaded.sql("postgres", worker)
        for wish in ("DROP EXTENSION profile_cache", f"DROP DATABASE {database} WITH (FORCE)", f"CREATE DATABASE {database}_2 TEMPLATE {database}"):
            place = "postgres" if "DATABASE" in wish else database
            done = preloaded.psql(place, "-c", f"SET ROLE {role}_nobody", "-c", wish, capture_output=True)
            if "must be owner" not in done.stderr and "permission denied" not in done.stderr:
                raise RuntimeError(f"{wish}: {done.stderr}")
        expect("whom nobody has had leave", preloaded.sql("postgres", worker), pid)
        preloaded.sql("postgres", f"ALTER DATABASE {database} OWNER TO {role}")
        done = preloaded.psql("postgres", "-c", f"SET ROLE {role}", "-c", f"DROP DATABASE {database} WITH (FORCE)", capture_output=True)
        expect("what the owner is told", done.stderr, "")
    finally:
        slowly(preloaded, None)
    preloaded.create(database)


def test_helpers(preloaded, database):
    """B10: Two workers share a fill, no more than the setting says; both leave when somebody wants the database, and when there
    is nothing left."""
    fill(preloaded, database, 3000)
    slowly(preloaded, 10)
    preloaded.sql("postgres", "ALTER SYSTEM SET profile_cache.refresh_workers = 2;\nSELECT pg_reload_conf()")
    try:
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        listed(preloaded, database)
        wait_for(preloaded, "postgres", "two workers", of(database), "2")
        preloaded.sql("postgres", f"ALTER DATABASE {database} RENAME TO {database}_2")
        preloaded.sql("postgres", f"ALTER DATABASE {database}_2 RENAME TO {database}")
        wait_for(preloaded, "postgres", "two workers again", of(database), "2")
        expect("pending", preloaded.sql(database, "SELECT count(*) > 0 FROM profile_cache.pending_epoch"), "t")
    finally:
        slowly(preloaded, None)
        preloaded.sql("postgres", "ALTER SYSTEM RESET profile_cache.refresh_workers;\nSELECT pg_reload_conf()")
    fresh(preloaded, database)
    wait_for(preloaded, "postgres", "nobody is connected to an idle database", of(database), "0")


EXPIRED = "SELECT count(*) FROM user_profile WHERE cached_profile_valid_until <= now() AND profile_cache_updated_at < cached_profile_valid_until"


def test_expiry(preloaded, database):
    """B5: A document that expires is computed anew when its moment has come: one that was there before, and one that a commit
    has brought, though nobody is connected by then; and many at once."""
    fill(preloaded, database)
    listed(preloaded, database)
    wait_for(preloaded, database, "a slot", "SELECT worker IN ('idle', 'refreshing') FROM profile_cache.status")
    wait_for(preloaded, "postgres", "nobody is connected to an idle database", of(database), "0")
    for users in ("user_id = 7", "user_id BETWEEN 1 AND 250"):
        preloaded.sql(database, f"UPDATE user_subscription SET status = 'active', current_period_end = now() + interval '3 s' WHERE {users}")
        ends = "SELECT count(*) > 0 AND bool_and(current_period_end < now()) FROM user_subscription WHERE " + users
        wait_for(preloaded, database, "their moment", ends)
        wait_for(preloaded, database, "they are computed anew", EXPIRED, "0")
        fresh(preloaded, database)
        wait_for(preloaded, "postgres", "nobody is connected", of(database), "0")
    # Known from the tables alone, after the server's restart.
    preloaded.sql(database, "CREATE INDEX ON user_profile (cached_profile_valid_until)")
    preloaded.sql(database, "UPDATE user_subscription SET current_period_end = now() + interval '9 s' WHERE user_id = 8")
    preloaded.stop("fast")
    preloaded.start()
    wait_for(preloaded, database, "its moment", "SELECT current_period_end < now() FROM user_subscription WHERE user_id = 8")
    wait_for(preloaded, database, "it is computed anew", EXPIRED, "0")
    fresh(preloaded, database)


def statement(server, sql, database="postgres", limit=60):
    """How long it takes; raises what it raises."""
    began = time.monotonic()
    server.psql(database, "-c", sql, check=True, capture_output=True, timeout=limit)
    return time.monotonic() - began


# A document that takes ten minutes, from when it is attached on.
SLOW = """CREATE FUNCTION slow(seconds double precision) RETURNS int IMMUTABLE LANGUAGE internal AS 'pg_sleep';
CREATE VIEW slowly AS SELECT supabase_user_id, jsonb_build_object('id', id, 'n', slow(CASE language WHEN 'slow' THEN 600 ELSE 0 END)) AS document FROM user_profile;
SELECT profile_cache.attach(document => 'slowly');
SET profile_cache.max_immediate = 0;
UPDATE user_profile SET language = 'slow';
"""
SLEEPS = "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'profile_cache worker' AND wait_event = 'PgSleep'"


def slow(server, database):
    """The worker computes one document in this database, for ten minutes."""
    fill(server, database)
    survive(server, database)
    server.sql(database, SLOW)
    listed(server, database)
    wait_for(server, "postgres", "the worker computes", SLEEPS)


def test_databases(preloaded, database):
    """B2, B3: Whoever wants a database for himself gets it while the worker computes there: as a template, under another name, to drop
    it, with FORCE and without. The worker of another one is in nobody's way."""
    slow(preloaded, database)
    for sql in (
        f"CREATE DATABASE {database}_copy TEMPLATE {database}",
        f"CREATE DATABASE {database}_file TEMPLATE {database} STRATEGY file_copy",
        f"DROP DATABASE {database}_copy",
        f"DROP DATABASE {database}_file WITH (FORCE)",
        f"ALTER DATABASE {database} SET TABLESPACE pg_default",
    ):
        wait_for(preloaded, "postgres", "the worker computes", SLEEPS)
        took = statement(preloaded, sql)
        if took > SOON:
            raise RuntimeError(f"{sql} took {took:.1f} s")
    wait_for(preloaded, "postgres", "it comes back", SLEEPS)
    statement(preloaded, f"ALTER DATABASE {database} RENAME TO {database}_2")
    # Its new name is not in the list.
    wait_for(preloaded, "postgres", "no worker", WORKERS, "0")
    listed(preloaded, f"{database}_2")
    wait_for(preloaded, "postgres", "the worker computes under the new name", SLEEPS)
    # One that fails, and one that is rolled back: the worker comes back.
    refused = preloaded.psql("postgres", "-c", f"CREATE DATABASE postgres TEMPLATE {database}_2", capture_output=True)
    expect("refused", refused.returncode != 0, True)
    wait_for(preloaded, "postgres", "it comes back", SLEEPS)
    statement(preloaded, f"BEGIN; ALTER DATABASE {database}_2 RENAME TO x; ROLLBACK")
    wait_for(preloaded, "postgres", "it comes back", SLEEPS)
    # One that has to wait itself: nobody begins meanwhile, to find no database then.
    with Session(preloaded, "postgres") as holds, Session(preloaded, "postgres") as drops:
        holds.do(f"BEGIN; COMMENT ON DATABASE {database}_2 IS 'x'")
        drops.begin(f"DROP DATABASE {database}_2")
        wait_for(preloaded, "postgres", "the worker leaves", WORKERS, "0")
        time.sleep(1)
        holds.do("ROLLBACK")
        expect("what DROP DATABASE says", drops.end(), "")
    preloaded.create(database)
    slow(preloaded, database)
    statement(preloaded, f"DROP DATABASE {database} WITH (FORCE)")
    wait_for(preloaded, "postgres", "no worker", WORKERS, "0")
    preloaded.create(database)


def test_not_to_be_connected(preloaded, database):
    """B8: A database that is not there, has nothing attached or allows no connections takes no worker; template databases are
    left alone."""
    preloaded.sql("postgres", "CREATE DATABASE closed TEMPLATE template0;\nALTER DATABASE closed ALLOW_CONNECTIONS false;")
    began = len(preloaded.log())
    listed(preloaded, "nowhere", "closed", "template0", database, "postgres")
    wait_for(preloaded, "postgres", "no worker where nothing is attached", WORKERS, "0")
    attached(preloaded, database)
    fresh(preloaded, database)
    # Opened, and closed while nobody is connected.
    preloaded.sql("postgres", f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    wait_for(preloaded, "postgres", "nobody", WORKERS, "0")
    preloaded.sql("postgres", f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
    fresh(preloaded, database)
    preloaded.sql("postgres", "DROP DATABASE closed")
    if "FATAL" in preloaded.log()[began:]:
        raise RuntimeError(preloaded.log()[began:])


def test_detached_under_it(preloaded, database):
    """B2: DROP EXTENSION comes through while it computes, and detach() beside it; and it begins anew when something is attached."""
    gated(preloaded, database)
    preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
    with Gate(preloaded, database) as gate:
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        gate.wait()
        # In the middle of a step, which would not end by itself.
        statement(preloaded, "DROP EXTENSION profile_cache CASCADE", database)
    expect("extensions", preloaded.sql(database, "SELECT count(*) FROM pg_extension WHERE extname = 'profile_cache'"), 0)
    wait_for(preloaded, "postgres", "no worker", WORKERS, "0")
    preloaded.sql(database, "CREATE EXTENSION profile_cache; SELECT profile_cache.attach()")
    fresh(preloaded, database)
    preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
    preloaded.sql(database, "SELECT profile_cache.detach()")
    wait_for(preloaded, "postgres", "no worker", WORKERS, "0")
    preloaded.sql(database, "SELECT profile_cache.attach()")
    fresh(preloaded, database)


def test_shutdowns(preloaded, database):
    """B3: Smart, fast and immediate shutdown end it while it computes; after each it goes on."""
    slow(preloaded, database)
    for mode in ("smart", "fast", "immediate"):
        began = time.monotonic()
        preloaded.stop(mode)
        if (took := time.monotonic() - began) > 30:
            raise RuntimeError(f"a {mode} shutdown takes {took:.0f} s")
        preloaded.start()
        wait_for(preloaded, "postgres", "the worker computes", SLEEPS)


def test_terminated(preloaded, database):
    """B3: Whoever is ended comes back: the worker, the launcher. A cancelled step is an error as any other."""
    gated(preloaded, database)
    with Gate(preloaded, database) as gate:
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        for kind in ("worker", "launcher", "worker"):
            gate.wait()
            preloaded.sql("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'profile_cache {kind}'")
            wait_for(preloaded, "postgres", "the launcher", LAUNCHERS, "1")
        gate.wait()
        preloaded.sql("postgres", "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'profile_cache worker'")
        wait_for(preloaded, database, "status", "SELECT worker ~ '^waiting until .*: SQLSTATE 57014$' FROM profile_cache.status")
    fresh(preloaded, database, VERIFY)


def test_interrupted_naps(preloaded, database):
    """B3: Whoever is ended in a nap of a fill comes back to it, with nobody's commit: ended or cancelled by somebody, or made to leave for a
    statement that fails. A cancel of a nap is no error."""
    fill(preloaded, database, 3000)
    slowly(preloaded, 1)
    pid = "SELECT max(pid) FROM pg_stat_activity WHERE backend_type = 'profile_cache worker'"
    napping = "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'profile_cache worker' AND wait_event = 'Extension' AND state = 'idle'"
    running = "SELECT count(*) = 1 FROM profile_cache.epoch_progress WHERE running AND listed IS NOT NULL"
    try:
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        listed(preloaded, database)
        wait_for(preloaded, database, "it fills", running)
        log = len(preloaded.log())
        for way in ("pg_terminate_backend", "pg_cancel_backend", "a copy", "pg_terminate_backend"):
            wait_for(preloaded, "postgres", "a nap", napping)
            before = preloaded.sql("postgres", pid)
            if way == "a copy":
                # Refused after the worker has been made to leave.
                done = preloaded.psql("postgres", "-c", f"CREATE DATABASE postgres TEMPLATE {database}", capture_output=True)
                expect("refused", done.returncode != 0, True)
            else:
                preloaded.sql("postgres", f"SELECT {way}({before})")
            if way != "pg_cancel_backend":
                wait_for(preloaded, "postgres", "another worker", f"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'profile_cache worker' AND pid <> {before}")
        expect("pending", preloaded.sql(database, "SELECT count(*) > 0 FROM profile_cache.pending_epoch"), "t")
        expect("errors", re.findall(r"ERROR:  canceling.*", preloaded.log()[log:]), [])
    finally:
        slowly(preloaded, None)
    fresh(preloaded, database)


def test_owner_who_is_no_superuser(preloaded, database):
    """B2: A database's owner drops it with FORCE while the worker computes, which runs as a superuser."""
    preloaded.sql("postgres", "CREATE ROLE owns_it CREATEDB")
    try:
        for _ in range(3):
            slow(preloaded, database)
            preloaded.sql("postgres", f"ALTER DATABASE {database} OWNER TO owns_it;\nSET ROLE owns_it;\nDROP DATABASE {database} WITH (FORCE);")
            preloaded.create(database)
    finally:
        preloaded.sql("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        preloaded.sql("postgres", "DROP ROLE owns_it")
        preloaded.create(database)


def test_without_rights(preloaded, database):
    """B2: Who may not run a statement makes nobody leave by it."""
    slow(preloaded, database)
    preloaded.sql("postgres", "CREATE ROLE may_create CREATEDB")
    pid = f"SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'profile_cache worker' AND datname = '{database}'"
    before = preloaded.sql("postgres", pid)
    try:
        for statement in (
            "DROP EXTENSION profile_cache CASCADE",
            "ALTER EXTENSION profile_cache UPDATE",
            f"CREATE DATABASE copied TEMPLATE {database}",
            f"ALTER DATABASE {database} RENAME TO another",
            f"DROP DATABASE {database}",
        ):
            refused = preloaded.psql(database, "-At", input=f"SET ROLE may_create;\n{statement};", capture_output=True)
            if "must be owner" not in refused.stderr and "permission denied" not in refused.stderr:
                raise RuntimeError(refused.stderr)
            for _ in range(5):
                expect(f"the worker's pid after {statement}", preloaded.sql("postgres", pid), before)
                time.sleep(0.1)
    finally:
        preloaded.sql("postgres", "DROP ROLE may_create")
    # A template is anybody's to copy who may create databases; so its worker leaves.
    preloaded.sql("postgres", f"ALTER DATABASE {database} IS_TEMPLATE true;\nCREATE ROLE may_create CREATEDB")
    try:
        preloaded.sql("postgres", f"SET ROLE may_create;\nCREATE DATABASE copied TEMPLATE {database}")
    finally:
        preloaded.sql("postgres", f"ALTER DATABASE {database} IS_TEMPLATE false;\nDROP DATABASE IF EXISTS copied;\nDROP ROLE may_create")


def test_two_let_go(preloaded, database):
    """B2: Of two databases that one transaction has wanted for itself, both have their workers back when it is rolled back."""
    slow(preloaded, database)
    preloaded.sql("postgres", f"ALTER DATABASE {database} RENAME TO {database}_1")
    preloaded.create(database)
    preloaded.create(f"{database}_2", f"{database}_1")
    listed(preloaded, f"{database}_1", f"{database}_2")
    two = SLEEPS.replace("> 0", "= 2")
    try:
        wait_for(preloaded, "postgres", "both compute", two)
        preloaded.sql("postgres", f"BEGIN;\nALTER DATABASE {database}_1 RENAME TO x;\nALTER DATABASE {database}_2 RENAME TO y;\nROLLBACK")
        wait_for(preloaded, "postgres", "both come back", two)
    finally:
        for n in (1, 2):
            preloaded.sql("postgres", f"DROP DATABASE IF EXISTS {database}_{n}")


def test_killed(preloaded, database):
    """SIGKILL of the worker: the server starts anew, and so does it."""
    slow(preloaded, database)
    pid = preloaded.sql("postgres", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'profile_cache worker'")
    subprocess.run(["kill", "-KILL", pid], check=True)
    for _ in range(600):
        done = preloaded.psql("postgres", "-Atc", SLEEPS, capture_output=True)
        if done.stdout.strip() == "t":
            return
        time.sleep(0.1)
    raise RuntimeError("the worker does not come back")


def test_too_few_processes(preloaded, database):
    """B6: Without room for one more process it waits, says so, and begins when there is one."""
    fill(preloaded, database)
    preloaded.create("other_" + database, database)
    preloaded.stop("fast")
    # The launcher, logical replication's, and one.
    preloaded.start(max_worker_processes=3)
    try:
        preloaded.sql("other_" + database, SLOW)
        listed(preloaded, "other_" + database)
        wait_for(preloaded, "postgres", "the worker computes", SLEEPS)
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        listed(preloaded, "other_" + database, database)
        says = "SELECT worker LIKE 'no free worker slot%' FROM profile_cache.status"
        wait_for(preloaded, database, "it says that there is no room", says)
        expect("health", preloaded.sql(database, HEALTH).partition("; ")[0], "warning: no free worker slot: is max_worker_processes too low?")
        preloaded.drop("other_" + database)
        wait_for(preloaded, database, "everything fresh", FRESH)
    finally:
        preloaded.stop("fast")
        preloaded.start(max_worker_processes=0)
        status, health = preloaded.sql(database, STATUS), preloaded.sql(database, HEALTH)
        preloaded.stop("fast")
        preloaded.start()
    expect("without a launcher", status.partition(":")[0], "off")
    expect("health without a launcher", health, "warning: off: its launcher does not run: is max_worker_processes too low?")


def test_standby(preloaded, database):
    """A standby has none, and reads there say so to nobody; on promotion it begins."""
    warm(preloaded, database)
    base = [preloaded.bindir / "pg_basebackup", "-D", preloaded.dir / "standby", "-R", "-X", "stream", "-c", "fast", "--no-sync"]
    preloaded.run_server_command(*base)
    preloaded.start("standby", port="5433")
    standby = Standby(preloaded)
    try:
        listed(preloaded)
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        wait_for(standby, database, "the change", "SELECT count(*) > 0 FROM profile_cache.pending")
        expect("wrong", standby.sql(database, WRONG), 0)
        expect("launchers", standby.sql("postgres", LAUNCHERS), 0)
        expect("status", standby.sql(database, STATUS).partition(":")[0], "off")
        standby.sql("postgres", "SELECT pg_promote()")
        fresh(standby, database)
    finally:
        preloaded.stop("fast", "standby")


class Standby:
    """The second server in the folder of another."""

    def __init__(self, server):
        self.server, self.env = server, dict(server.env, PGPORT="5433")

    def sql(self, database, sql):
        command = [self.server.bindir / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]
        return subprocess.run(command, env=self.env, text=True, capture_output=True, check=True).stdout.strip()


def test_binary_upgrade(preloaded, database):
    """pg_upgrade's own servers have none."""
    warm(preloaded, database)
    preloaded.stop("fast")
    options = " ".join(f"-c {n}='{v}'" for n, v in ({"listen_addresses": "", "unix_socket_directories": preloaded.dir, "port": preloaded.port, "shared_preload_libraries": "profile_cache"} | preloaded.library).items())
    preloaded.run_server_command(
        preloaded.bindir / "pg_ctl", "start", "-w", "-D", preloaded.dir / "data", "-l", preloaded.dir / "log", "-o", "-b " + options
    )
    try:
        expect("launchers", preloaded.sql("postgres", LAUNCHERS), 0)
        expect("status", preloaded.sql(database, STATUS).partition(":")[0], "off")
    finally:
        preloaded.stop("fast")
        preloaded.start()
    fresh(preloaded, database)


def test_synchronous_standby_gone(preloaded, database):
    """B7: A commit that waits for a synchronous standby that is gone holds up its session alone; the worker goes on."""
    preloaded.sql("postgres", f"ALTER DATABASE {database} SET synchronous_commit = on")
    warm(preloaded, database)
    preloaded.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'gone'")
    preloaded.sql("postgres", "SELECT pg_reload_conf()")
    try:
        # The session's own commits do not wait, so that the test goes on.
        change = "SET synchronous_commit = off; UPDATE role SET permissions = '[1]' WHERE name = 'member'"
        preloaded.sql(database, change)
        wait_for(preloaded, database, "everything fresh", FRESH)
        with Session(preloaded, database) as waits:
            waits.begin("UPDATE role SET permissions = '[2]' WHERE name = 'member'")
            wait_for(preloaded, "postgres", "a commit that waits", "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            # Another row, as that one is locked until then.
            preloaded.sql(database, "SET synchronous_commit = off; UPDATE subscription_plan SET display_name = display_name || '!'")
            wait_for(preloaded, database, "everything else is fresh", FRESH)
            preloaded.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
            preloaded.sql("postgres", "SELECT pg_reload_conf()")
            waits.end()
    finally:
        preloaded.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
        preloaded.sql("postgres", "SELECT pg_reload_conf()")
    fresh(preloaded, database)


def test_failing_view(preloaded, database):
    """B6: A view that raises for some profiles keeps nobody else from being refreshed; what cannot be refreshed at all is tried
    again after a pause that grows, and status says so."""
    warm(preloaded, database)
    preloaded.sql(
        database,
        """CREATE VIEW fails AS SELECT supabase_user_id, jsonb_build_object('n', 1 / nullif(id - 7, -7)) AS document FROM user_profile;
        SELECT profile_cache.attach(document => 'fails');""",
    )
    wait_for(preloaded, database, "all but one", "SELECT stale = 1 AND failures = 1 AND pending_epochs = 0 FROM profile_cache.status")
    expect("failures", preloaded.sql(database, "SELECT string_agg(sqlstate, ' ') FROM profile_cache.failure"), "22012")
    # Its next attempt is known, and nobody waits for it there.
    wait_for(preloaded, "postgres", "nobody is connected", WORKERS, "0")
    preloaded.sql(database, "CREATE OR REPLACE VIEW fails AS SELECT supabase_user_id, jsonb_build_object('n', 1) AS document FROM user_profile")
    fresh(preloaded, database, VERIFY)
    # Where everything fails: one line in the log, and one in status.
    log = len(preloaded.log())
    preloaded.sql(database, "ALTER TABLE profile_cache.last_refresh RENAME COLUMN looked_to TO nowhere")
    preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
    says = "SELECT coalesce(substring(worker FROM '^waiting until (.*): SQLSTATE 42703$')::timestamptz > now(), false) FROM profile_cache.status"
    wait_for(preloaded, database, "it says what is wrong", says)
    again = "SELECT worker ~ '^(waiting until .*: SQLSTATE 42703|starting|refreshing)$' FROM profile_cache.status"
    for _ in range(20):
        expect("it tries again", preloaded.sql(database, again), "t")
        time.sleep(0.1)
    failing = "SELECT state = 'warning' AND detail LIKE 'it has failed _ times in a row, last with SQLSTATE 42703' FROM profile_cache.health() WHERE check_name = 'worker'"
    wait_for(preloaded, database, "health after three failures", failing)
    preloaded.sql(database, "ALTER TABLE profile_cache.last_refresh RENAME COLUMN nowhere TO looked_to")
    fresh(preloaded, database, VERIFY)
    wait_for(preloaded, database, "health at the end", "SELECT state = 'ok' FROM profile_cache.health() WHERE check_name = 'worker'")
    expect("lines in the log", preloaded.log()[log:].count("profile_cache worker: "), 1)


def test_settings_of_others(preloaded, database):
    """B7: What a database, a role or the configuration sets for sessions does not concern it: timeouts, isolation, read only, a
    search_path with other people's functions, a role."""
    fill(preloaded, database)
    preloaded.sql(
        database,
        f"""CREATE SCHEMA theirs;
        CREATE FUNCTION theirs.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''theirs''; END';
        CREATE FUNCTION theirs.eq(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''theirs''; END';
        CREATE OPERATOR theirs.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = theirs.eq);
        ALTER DATABASE {database} SET search_path = theirs, pg_catalog;
        ALTER DATABASE {database} SET statement_timeout = 1;
        ALTER ROLE ALL SET lock_timeout = 1;
        ALTER ROLE postgres SET default_transaction_isolation = 'serializable';
        ALTER DATABASE {database} SET default_transaction_read_only = on;
        ALTER ROLE postgres IN DATABASE {database} SET idle_in_transaction_session_timeout = 1;
        ALTER ROLE postgres IN DATABASE {database} SET session_replication_role = replica;
        CREATE ROLE may_nothing;
        ALTER DATABASE {database} SET role = may_nothing;
        ALTER DATABASE {database} SET session_authorization = may_nothing;""",
    )
    # The sessions of this test set it off, before anything is run in them.
    preloaded.env["PGOPTIONS"] = "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off -c search_path=public -c role=none -c session_authorization=postgres"
    try:
        preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
        listed(preloaded, database)
        fresh(preloaded, database)
    finally:
        preloaded.sql("postgres", "ALTER ROLE ALL RESET ALL; ALTER ROLE postgres RESET ALL")
        del preloaded.env["PGOPTIONS"]


def test_other_layout(preloaded, database):
    """B6: SQL objects that this library does not know, as after an update of the extension beside a library that is still loaded:
    the worker waits, and status says so."""
    warm(preloaded, database)
    layout = preloaded.sql(database, "SELECT pg_get_functiondef('profile_cache.layout'::regproc)")
    number = re.search(r"SELECT (\d+)|RETURN (\d+)", layout)
    newer = layout.replace(number[0], number[0].replace(number[1] or number[2], "999"))
    preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
    preloaded.sql(database, newer)
    wait_for(preloaded, "postgres", "nobody is connected", WORKERS, "0")
    preloaded.sql(database, layout)
    preloaded.sql(database, "SELECT profile_cache.invalidate_all()")
    fresh(preloaded, database)


def test_reload(preloaded, database):
    """SIGHUP: the list is read anew while it is there, a database that is no longer in it is left, and one step's time is another."""
    warm(preloaded, database)
    preloaded.sql(database, "UPDATE role SET permissions = '[1]' WHERE name = 'member'")
    listed(preloaded)
    wait_for(preloaded, "postgres", "no worker", WORKERS, "0")
    says = "off: this database is not in profile_cache.databases"
    wait_for(preloaded, database, "status", STATUS, says)
    expect("health", preloaded.sql(database, HEALTH), f"ok: {says}")
    preloaded.sql(database, "UPDATE role SET permissions = '[2]' WHERE name = 'member'")
    listed(preloaded, "postgres", database)
    fresh(preloaded, database)


def test_beside_refresh(preloaded, database):
    """B6: Beside CALL refresh() and an idle writer: what has to wait is tried again by itself."""
    warm(preloaded, database)
    with Session(preloaded, database) as writer:
        writer.do("BEGIN; UPDATE user_profile SET phone = '1' WHERE id = 1")
        preloaded.sql(database, "UPDATE role SET permissions = '[5]' WHERE name = 'member'")
        preloaded.sql(database, "SELECT profile_cache.invalidate(supabase_user_id) FROM user_profile WHERE id = 1")
        preloaded.sql(database, "CALL profile_cache.refresh()")
        wait_for(preloaded, database, "it says that others are in the way", "SELECT worker LIKE 'waiting until %: others are in the way' FROM profile_cache.status")
        writer.do("COMMIT")
    fresh(preloaded, database)


def test_hit_rate(preloaded, database):
    """health() finds that most reads of the last minutes were misses; not of few, and not where another check says why."""
    fill(preloaded, database)
    rate = "SELECT concat_ws(' | ', state, regexp_replace(detail, '[0-9-]+T[0-9:.]+Z', 'TIME'), advice) FROM profile_cache.health() WHERE check_name = 'hit_rate'"
    read = "SELECT count(get_profile(supabase_user_id)) FROM user_profile, generate_series(1, {}) AS n WHERE id <= 100"
    preloaded.sql(database, "SELECT profile_cache.stats_reset()")
    off = "SET profile_cache.enabled = off; "
    preloaded.sql(database, off + read.format(9))
    expect("of few", preloaded.sql(database, rate), "ok | 0 of 900 reads since TIME were hits")
    preloaded.sql(database, read.format(1))
    bad = "warning | only {} of {} reads since TIME were hits | SELECT miss_reasons FROM profile_cache.stats"
    expect("most are misses", preloaded.sql(database, rate), bad.format(100, 1000))
    preloaded.sql(database, read.format(8))
    expect("half are", preloaded.sql(database, rate), "ok | 900 of 1800 reads since TIME were hits")
    preloaded.sql(database, off + read.format(1))
    expect("more than half", preloaded.sql(database, rate), bad.format(900, 1900))
    preloaded.sql(database, "ALTER TABLE user_role DISABLE TRIGGER profile_cache_update")
    expect("told elsewhere", preloaded.sql(database, rate), "ok | 900 of 1900 reads since TIME were hits, while reads use the view, as another check says")
    uncounted = "ok | nothing is counted in this session, as profile_cache.track is off | SET profile_cache.track = on"
    expect("not counted", preloaded.sql(database, "SET profile_cache.track = off; " + rate), uncounted)


LATER = "SELECT count(*) FROM user_profile WHERE cached_profile_epoch IS NULL"
COMPUTED = "SELECT computed_at_commit FROM profile_cache.stats"
# Changes of single profiles: a member's, the profile's own, both in one transaction.
CHANGES = (
    "UPDATE user_subscription SET status = CASE status WHEN 'trialing' THEN 'active' ELSE 'trialing' END WHERE user_id = 1",
    "UPDATE user_profile SET full_name = full_name || '!' WHERE id = 2",
    "BEGIN; UPDATE user_profile SET full_name = full_name || '!' WHERE id = 3; DELETE FROM user_role WHERE user_id = 3; COMMIT",
)


def later(server, database, users=300):
    """What changes there the worker computes."""
    warm(server, database, users)
    fresh(server, database)
    server.sql(database, f"ALTER DATABASE \"{database}\" SET profile_cache.compute = 'worker'")


class Stopped:
    """The worker does nothing; what has begun before is over."""

    def __init__(self, server, database):
        # It comes for what is pending, and stays for some seconds.
        server.sql(database, "UPDATE role SET permissions = to_jsonb(clock_timestamp()::text) WHERE name = 'member'")
        wait_for(server, database, "everything fresh", FRESH)
        wait_for(server, "postgres", "the worker is there", of(database), "1")
        self.pid = int(server.sql("postgres", of(database).replace("count(*)", "pid")))

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        # Or it has ended with the server.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


def test_later(preloaded, database):
    """B11: A commit takes the stamps of what it has changed, and computes nothing; the worker does, without being asked."""
    later(preloaded, database)
    preloaded.sql(database, "UPDATE role SET permissions = '[1]' WHERE name = 'member'")
    fresh(preloaded, database)
    before = preloaded.sql(database, COMPUTED)
    with Stopped(preloaded, database):
        for change in CHANGES:
            preloaded.sql(database, change)
        expect("without a stamp", preloaded.sql(database, LATER), 3)
        expect("pending", preloaded.sql(database, "SELECT count(*) FROM profile_cache.pending"), 0)
        expect("computed at commit", preloaded.sql(database, COMPUTED), before)
        expect("wrong", preloaded.sql(database, WRONG), 0)
        # One snapshot of before the others' changes: it must not store what that shows.
        with Session(preloaded, database) as old:
            old.do("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM user_role; SET profile_cache.compute = 'commit'")
            preloaded.sql(database, "DELETE FROM user_role WHERE user_id IN (1, 2)")
            old.do("UPDATE user_subscription SET plan_id = 'free' WHERE user_id IN (1, 2)")
            old.do("COMMIT")
        expect("wrong", preloaded.sql(database, WRONG), 0)
        # What is prepared computes: nobody would tell the worker.
        preloaded.sql(database, "BEGIN; UPDATE user_profile SET full_name = 'Prepared' WHERE id = 9; PREPARE TRANSACTION 'p';")
        preloaded.sql(database, "COMMIT PREPARED 'p'")
        expect("computed before it was prepared", preloaded.sql(database, LATER.replace("IS NULL", "IS NOT NULL AND id = 9")), 1)
    fresh(preloaded, database)
    expect("verify", preloaded.sql(database, VERIFY), 0)


def test_later_written_once(preloaded, database):
    """B11: What a transaction has taken the stamp of by changing the row itself it does not write once more; a member's change writes
    the row, even where it has no stamp."""
    later(preloaded, database)
    with Stopped(preloaded, database):
        version = "SELECT cmax::text || ' ' || ctid FROM user_profile WHERE id = {}"
        with Session(preloaded, database) as session:
            own = session.do("BEGIN; UPDATE user_profile SET full_name = 'Own' WHERE id = 2; " + version.format(2))
            session.do("COMMIT")
        expect("the version", preloaded.sql(database, version.format(2)), own)
        before = preloaded.sql(database, version.format(2))
        preloaded.sql(database, "DELETE FROM user_role WHERE user_id = 2")
        if preloaded.sql(database, version.format(2)) == before:
            raise RuntimeError("a member's change has left the row as it was, and an older snapshot's document could be stored over it")
    fresh(preloaded, database)


def test_later_untold(preloaded, database):
    """B11: Whoever knows what is to be computed may end: the worker, with what it has taken over, or the whole server. What was told
    is found without a read of it."""
    # More than one look at a part of the table takes.
    later(preloaded, database, 5000)
    # Of one role's, and written otherwise.
    preloaded.sql(database, f'ALTER DATABASE "{database}" RESET profile_cache.compute; ALTER ROLE CURRENT_USER IN DATABASE "{database}" SET profile_cache.compute = \'Worker\'')
    survive(preloaded, database)
    shown = GATED.replace("'id', id", "'name', full_name")
    preloaded.sql(database, shown + "SELECT profile_cache.attach(document => 'gated')")
    view = WRONG.replace("profile_document", "gated")
    fresh(preloaded, database, view)
    rename = "UPDATE user_profile SET full_name = full_name || '!' WHERE id % 250 = 7"
    with Gate(preloaded, database) as gate:
        preloaded.sql(database, rename)
        gate.wait()
        expect("without a stamp", preloaded.sql(database, LATER), 20)
        preloaded.sql("postgres", of(database).replace("count(*)", "pg_terminate_backend(pid)"))
        wait_for(preloaded, "postgres", "it has ended", of(database) + " AND query_start < now() - interval '1 minute'", "0")
    fresh(preloaded, database, view)
    with Stopped(preloaded, database):
        preloaded.sql(database, rename)
        expect("without a stamp", preloaded.sql(database, LATER), 20)
        preloaded.stop("immediate")
    preloaded.start()
    fresh(preloaded, database, view)


def test_later_locked(preloaded, database):
    """B11: A row that somebody else has locked when the worker comes to it is not forgotten."""
    later(preloaded, database)
    with Session(preloaded, database) as other:
        with Stopped(preloaded, database):
            preloaded.sql(database, CHANGES[1])
            other.do("BEGIN; SELECT FROM user_profile WHERE id = 2 FOR UPDATE")
        wait_for(preloaded, database, "it stands in a table", "SELECT count(*) = 1 FROM profile_cache.pending_key")
        other.do("COMMIT")
    fresh(preloaded, database)


def test_later_in_nobodys_way(preloaded, database):
    """B11, W3: Where DDL has a lock, the commit waits for nobody; nor does the worker, which comes back to what it was told."""
    later(preloaded, database)
    with Session(preloaded, database) as ddl:
        ddl.do("BEGIN; ALTER INDEX user_profile_pkey SET TABLESPACE pg_default")
        change = ["timeout", "20", str(preloaded.bindir / "psql"), "-XAtq", "-d", database, "-c", CHANGES[0]]
        expect("the commit beside DDL on an index", subprocess.run(change, env=preloaded.env, capture_output=True).returncode, 0)
        ddl.do("ROLLBACK")
    fresh(preloaded, database)
    with Session(preloaded, database) as ddl:
        ddl.do("BEGIN; LOCK TABLE user_role IN ACCESS EXCLUSIVE MODE")
        with Session(preloaded, database) as writer:
            writer.do(CHANGES[1])
        tried = "SELECT locks_not_had > {} FROM profile_cache.stats".format(preloaded.sql(database, "SELECT locks_not_had FROM profile_cache.stats"))
        wait_for(preloaded, database, "the worker tries, with nothing in hand", tried)
        expect("without a stamp", preloaded.sql(database, LATER), 1)
        ddl.do("ROLLBACK")
    fresh(preloaded, database)


def test_later_mended(preloaded, database):
    """B11: A profile for which the view failed is computed when the app has mended it, and not after a pause."""
    later(preloaded, database)
    preloaded.sql(database, "CREATE VIEW fragile AS SELECT supabase_user_id, jsonb_build_object('n', 1 / length(full_name)) AS document FROM user_profile")
    preloaded.sql(database, "SELECT profile_cache.attach(document => 'fragile')")
    fresh(preloaded, database, "SELECT 0")
    preloaded.sql(database, "UPDATE user_profile SET full_name = '' WHERE id = 2")
    wait_for(preloaded, database, "the view fails", "SELECT count(*) = 1 FROM profile_cache.failure")
    preloaded.sql(database, "UPDATE profile_cache.failure SET retry_at = now() + interval '1 day'")
    preloaded.sql(database, "UPDATE user_profile SET full_name = 'Mended' WHERE id = 2")
    wait_for(preloaded, database, "it is stored", LATER, "0")


def test_later_behind(preloaded, database):
    """B11: Where the worker does not keep up, commits compute; and so where there is none, of which status tells."""
    later(preloaded, database)
    before = int(preloaded.sql(database, COMPUTED))
    with Stopped(preloaded, database), Session(preloaded, database) as session:
        for n in range(1, 301):
            session.do(f"UPDATE user_profile SET full_name = full_name || '!' WHERE id = {n}")
            session.do(f"UPDATE user_profile SET supabase_user_id = gen_random_uuid() WHERE id = {n}")
        computed = int(session.do(COMPUTED)) - before
        expect("some are left to it, and some are not", (computed > 20, int(session.do(LATER)) > 200), (True, True))
    fresh(preloaded, database)
    listed(preloaded)
    wait_for(preloaded, database, "the worker has none", "SELECT worker LIKE 'off:%' FROM profile_cache.status")
    preloaded.sql(database, CHANGES[0])
    expect("without a stamp", preloaded.sql(database, LATER), 0)
    says = "SELECT EXISTS (SELECT FROM unnest(warnings) AS w WHERE w LIKE '%commits compute: the worker is off%') FROM profile_cache.status"
    expect("status says so", preloaded.sql(database, says), "t")
    expect("health", preloaded.sql(database, HEALTH).partition(":")[0], "warning")
