"""health() where it takes several sessions or servers: who is in the way, what makes reads wait, how standbys stand; and the probe of
docs/. What one session can bring about is in regress/health."""

import re
import subprocess

from lib.cluster import ROOT
from lib.filled import Session, expect, fill, wait_for


class Standby:
    """The second server in the folder of another."""

    def __init__(self, server):
        self.server, self.env = server, dict(server.env, PGPORT="5433")

    def sql(self, database, sql):
        command = [self.server.bindir / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database]
        done = subprocess.run(command, env=self.env, text=True, input=sql, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()


def says(server, database, check, pattern, before=""):
    """What a check says: state, detail and advice, as one line that this pattern matches."""
    line = server.sql(database, f"{before}SELECT concat_ws(' | ', state, detail, advice) FROM profile_cache.health() WHERE check_name = '{check}'")
    if not re.fullmatch(pattern, line):
        raise RuntimeError(f"{check}: {line!r} is not {pattern!r}")


def becomes(server, database, check, state):
    wait_for(server, database, f"{check} is {state}", f"SELECT state FROM profile_cache.health() WHERE check_name = '{check}'", state)


def test_health_of_holders(server, database):
    """Who is in the way is named, with his program; whoever makes reads wait is a warning after ten seconds, and health() does not."""
    fill(server, database, users=20)
    # From 17 on there is memory for counters without a preloaded library.
    nothing = r"nothing is counted, and profile_cache\.stats is null: .* \| add profile_cache .*"
    asked = "SET profile_cache.track = on; "
    says(server, database, "hit_rate", rf"ok \| ({nothing}|\d+ of \d+ reads since \S+Z were hits)", asked)
    with Session(server, database) as writer:
        pid = writer.do("SELECT pg_backend_pid()")
        writer.do("BEGIN; UPDATE user_profile SET phone = '1' WHERE id = 1")
        server.sql(database, "UPDATE role SET name = name || '!' WHERE id = 1")
        server.sql(database, "CALL profile_cache.refresh()")
        says(server, database, "holders", rf"ok \| refresh waits for the end of pid {pid} \(psql\) since \S+Z")
        writer.do("COMMIT")
        server.sql(database, "CALL profile_cache.refresh()")
        says(server, database, "holders", r"ok \| refresh waits for nobody")
        writer.do("BEGIN; LOCK TABLE user_profile")
        waits = rf"reads may wait while public\.user_profile is locked by pid {pid} \(psql\) since \S+Z"
        server.sql(database, "SET lock_timeout = '1s'; SELECT count(*) FROM profile_cache.health()")
        says(server, database, "holders", rf"ok \| {waits}")
        becomes(server, database, "holders", "warning")
        says(server, database, "holders", rf"warning \| {waits} \| SELECT pg_terminate_backend\({pid}\)")


def test_health_of_listed(server, database):
    """A database that is to have a worker, on a server that has not preloaded the library."""
    fill(server, database, users=20)
    says(server, database, "worker", r"ok \| off: not in shared_preload_libraries")
    server.sql(database, f"SELECT count(*) FROM profile_cache.health();\nALTER SYSTEM SET profile_cache.databases = 'other, {database}';\nSELECT pg_reload_conf();")
    try:
        becomes(server, database, "worker", "warning")
        says(server, database, "worker", r"warning \| profile_cache\.databases names this database, but .* \| ALTER SYSTEM SET shared_preload_libraries .*")
    finally:
        server.sql(database, "SELECT count(*) FROM profile_cache.health();\nALTER SYSTEM RESET profile_cache.databases;\nSELECT pg_reload_conf();")


def test_health_of_growth(server, database):
    """A table of ours that has grown: whoever has begun a moment ago is not said to keep its dead rows."""
    fill(server, database, users=20)
    grow = """ALTER TABLE profile_cache.pending_key ALTER COLUMN key_values SET STORAGE PLAIN;
        INSERT INTO profile_cache.pending_key (key_set, key_hash, reason, key_columns, key_values)
         SELECT 1, n, 'by hand', '{gone}', ARRAY[repeat('x', 3900)] FROM generate_series(1, 16800) AS n;
        DELETE FROM profile_cache.pending_key;"""
    with Session(server, database) as reader:
        reader.do("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM user_profile LIMIT 1")
        server.sql(database, grow)
        grown = r"warning \| profile_cache\.pending_key has grown to 66 MB for 0 row\(s\)"
        says(server, database, "pending", rf"{grown} \| VACUUM \(TRUNCATE\) profile_cache\.pending_key")


def test_health_of_standbys(server, database):
    """On a standby all checks are made: what replays, what is paused, what receives nothing. On the primary: a slot whose reader is
    gone, a synchronous standby that is missing."""
    fill(server, database)
    server.sql("postgres", "SELECT pg_create_physical_replication_slot('health')")
    base = [server.bindir / "pg_basebackup", "-D", server.dir / "follower", "-R", "-S", "health", "-X", "stream", "-c", "fast", "--no-sync"]
    server.run_server_command(*base)
    server.start("follower", port="5433", hot_standby_feedback="on", wal_receiver_status_interval="1s", wal_retrieve_retry_interval="100ms")
    standby = Standby(server)
    try:
        becomes(standby, database, "replication", "ok")
        says(standby, database, "replication", r"ok \| a standby, \d+ bytes behind what it has received, hot_standby_feedback on")
        says(standby, database, "worker", r"ok \| off: .*")
        expect("checks on the standby", standby.sql(database, "SELECT count(*) FROM profile_cache.health()"), 11)
        says(server, database, "replication", r"ok \| a primary of 1 standby\(s\)")
        server.sql(database, "UPDATE user_profile SET phone = '1' WHERE id = 1")
        wait_for(standby, database, "a transaction", "SELECT pg_last_xact_replay_timestamp() IS NOT NULL")
        standby.sql("postgres", "SELECT pg_wal_replay_pause()")
        wait_for(standby, "postgres", "it is paused", "SELECT pg_get_wal_replay_pause_state() = 'paused'")
        server.sql(database, "CREATE TABLE much AS SELECT repeat(n::text, 100) FROM generate_series(1, 60000) AS n; DROP TABLE much")
        says(standby, database, "replication", r"warning \| replay is paused on this standby, .*SELECT pg_wal_replay_resume\(\)")
        behind = "SELECT detail LIKE '%bytes behind what it has received; the last transaction that it has replayed is of 2%' FROM profile_cache.health() WHERE check_name = 'replication'"
        wait_for(standby, database, "it is behind", behind)
        standby.sql("postgres", "SELECT pg_wal_replay_resume()")
        becomes(standby, database, "replication", "ok")
        wait_for(standby, database, "it is paused no more", "SELECT NOT pg_is_wal_replay_paused()")
        standby.sql("postgres", "ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'")
        standby.sql("postgres", "SELECT pg_reload_conf()")
        becomes(standby, database, "replication", "warning")
        says(standby, database, "replication", r"warning \| this standby receives nothing from its primary, .* \| see its log .*")
        kept = "SELECT detail LIKE 'replication slot health keeps dead rows and % bytes of the log%' FROM profile_cache.health() WHERE check_name = 'replication'"
        wait_for(server, database, "the slot keeps rows", kept)
        says(server, database, "replication", r"warning \| .* \| start its reader, or SELECT pg_drop_replication_slot\('health'\)")
        # Whose snapshot keeps dead rows is named, where it is an old one: a slot is, whatever its age.
        dead = "UPDATE user_profile SET phone = n::text FROM generate_series(1, 1) AS n;" * 5
        server.sql(database, f"{dead} SELECT pg_stat_force_next_flush();")
        kept = "[0-9]+ rows of public.user_profile are dead beside 300, and may be kept by replication slot health"
        says(server, database, "profile_table", rf"warning \| {kept}(; only .*)? \| SELECT pg_drop_replication_slot\('health'\), if nobody needs it")
    finally:
        server.stop("fast", "follower")
        server.sql("postgres", "SELECT pg_drop_replication_slot('health')")
    becomes(server, database, "replication", "ok")
    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'ANY 2 (a, b)'")
    try:
        server.sql("postgres", "SELECT pg_reload_conf()")
        becomes(server, database, "replication", "warning")
        says(server, database, "replication", r"warning \| 0 of 2 synchronous standbys are there, and commits wait for the others: 0 do now \| .*")
        with Session(server, database) as waits:
            waits.do("SET synchronous_commit = on")
            waits.begin("UPDATE user_profile SET phone = '2' WHERE id = 2")
            wait_for(server, database, "a commit waits", "SELECT detail LIKE '%: 1 do now' AND since <= now() FROM profile_cache.health() WHERE check_name = 'replication'")
            server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
            server.sql("postgres", "SELECT pg_reload_conf()")
            waits.end()
    finally:
        server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
        server.sql("postgres", "SELECT pg_reload_conf()")


def test_probe(server, database):
    """The probe of docs/ prints one line, and its exit code says how bad it is."""
    text = "\n".join(page.read_text() for page in sorted((ROOT / "docs").rglob("*.md")))
    command = re.search(r"^psql .*profile_cache\.health\(\).*$", text, re.MULTILINE)[0]

    def probe(code, pattern):
        done = subprocess.run(["sh", "-c", command], env=server.env | {"PGDATABASE": database}, text=True, capture_output=True)
        if (done.returncode, bool(re.fullmatch(pattern + "\n?", done.stdout))) != (code, True):
            raise RuntimeError(f"{done.returncode}, {done.stdout!r}, {done.stderr!r}, not {code}, {pattern!r}")

    probe(3, "")
    fill(server, database, users=20)
    probe(0, "OK")
    server.sql(database, "SET profile_cache.notify = off; SELECT profile_cache.invalidate_all(); UPDATE profile_cache.pending_epoch SET created_at = now() - interval '6 min'")
    probe(1, r"WARNING pending: a change that .* use the view")
    server.sql(database, "ALTER EVENT TRIGGER profile_cache_ddl DISABLE")
    probe(2, r"CRITICAL triggers: event trigger .*; WARNING pending: .*")
    server.sql(database, 'ALTER EVENT TRIGGER profile_cache_ddl RENAME TO "two\n|lines"')
    probe(2, r"CRITICAL triggers: event trigger two //lines is .*|CRITICAL triggers: event trigger two  ?/lines is .*; WARNING .*")
