"""What takes more than sessions on one running server: a crash, a standby, dump and restore.

Each test gets the private server (cluster.py) and the name of a fresh database, and raises
RuntimeError where the cache would serve anything but what the view returns.
"""

import pathlib
import subprocess
import time

DEMO = pathlib.Path(__file__).parent / "demo"
# Rows where get_profile and the view differ, or a trusted copy and the view do.
WRONG = """SELECT (SELECT count(*) FROM user_profile AS p LEFT JOIN profile_document AS d USING (supabase_user_id)
  WHERE get_profile(p.supabase_user_id)::text IS DISTINCT FROM d.document::text)"""
VERIFY = "SELECT count(*) FROM profile_cache.verify()"
UNCACHED = "SELECT stale FROM profile_cache.status"
PENDING = "SELECT count(*) FROM profile_cache.pending"


def expect(what, got, wanted):
    if str(got) != str(wanted):
        raise RuntimeError(f"{what}: {got!r}, expected {wanted!r}")


def fill(server, database, users=300):
    """The demo's tables with some users, attached and cached."""
    for file in ("tables.sql", "data.sql"):
        done = server.psql(database, "-v", f"users={users}", "-f", DEMO / file, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
    server.sql(database, "CREATE EXTENSION profile_cache; SELECT profile_cache.attach();")
    server.sql(database, "CALL profile_cache.refresh()")
    expect("stale after the first refresh", server.sql(database, UNCACHED), 0)


def crash(server, database):
    """A prepared writer and noted lock holders outlive a crash: refresh notes them again by their XID."""
    fill(server, database)
    server.sql(
        database,
        "BEGIN; UPDATE user_subscription SET plan_id = 'team' WHERE user_id = 1; PREPARE TRANSACTION 'writer';",
    )
    server.sql(database, "UPDATE subscription_plan SET display_name = 'Team+' WHERE id = 'team'")
    server.sql(database, "CALL profile_cache.refresh()")
    expect("epochs held up by the prepared writer", server.sql(database, PENDING + " AND kind = 'epoch'"), 1)
    server.stop("immediate")
    server.start()
    expect("wrong after the crash", server.sql(database, WRONG), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    holders = "SELECT bool_and(holders[1] LIKE '-1/%') FROM profile_cache.drain"
    expect("the holder goes by its XID now", server.sql(database, holders), "t")
    expect("still held up", server.sql(database, PENDING + " AND kind = 'epoch'"), 1)
    server.sql(database, "COMMIT PREPARED 'writer'")
    expect("wrong after COMMIT PREPARED", server.sql(database, WRONG), 0)
    expect("verify", server.sql(database, VERIFY), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    expect("pending at the end", server.sql(database, PENDING), 0)
    expect("stale at the end", server.sql(database, UNCACHED), 0)
    expect("wrong at the end", server.sql(database, WRONG), 0)


def crash_in_a_pass(server, database):
    """A refresh that dies between two batches goes on where it was."""
    fill(server, database)
    server.sql(database, "UPDATE role SET permissions = '[1]' WHERE name = 'member'")
    steps = "SELECT phase, stored FROM profile_cache.refresh_step(50, 'epochs', NULL)"
    for _ in range(5):  # assigned, holders noted, pass begun, two batches of it
        server.sql(database, steps)
    position = "SELECT position IS NOT NULL FROM profile_cache.drain"
    expect("a pass is under way", server.sql(database, position), "t")
    server.stop("immediate")
    server.start()
    expect("wrong after the crash", server.sql(database, WRONG), 0)
    server.sql(database, "CALL profile_cache.refresh(50)")
    expect("pending at the end", server.sql(database, PENDING), 0)
    expect("stale at the end", server.sql(database, UNCACHED), 0)
    expect("verify", server.sql(database, VERIFY), 0)


def standby(server, database):
    """A hot standby serves get_profile, from the cache and from the view, and refuses to refresh."""
    fill(server, database)
    server.run_server_command(
        server.bindir / "pg_basebackup", "-D", server.dir / "standby", "-R", "-X", "stream", "-c", "fast", "--no-sync"
    )
    server.start("standby", port="5433")
    replica = dict(server.env, PGPORT="5433")

    def ask(sql):
        done = subprocess.run(
            [server.bindir / "psql", "-XAtq", "-d", database, "-c", sql], env=replica, text=True, capture_output=True
        )
        return done.stdout.strip() or done.stderr.strip()

    def catch_up():
        lsn = server.sql(database, "SELECT pg_current_wal_insert_lsn()")
        for _ in range(300):
            if ask(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'") == "t":
                return
            time.sleep(0.1)
        raise RuntimeError("the standby does not catch up")

    one = "SELECT profile_cache.explain(supabase_user_id) ->> '{}' FROM user_profile WHERE id = 1"
    try:
        catch_up()
        expect("wrong on the standby", ask(WRONG), 0)
        expect("served from", ask(one.format("served_from")), "cache")
        server.sql(database, "UPDATE subscription_plan SET display_name = display_name || '!'")
        catch_up()
        expect("served from, with a change pending", ask(one.format("served_from")), "view")
        expect("wrong on the standby, with a change pending", ask(WRONG), 0)
        expect("verify on the standby", ask(VERIFY), 0)
        refused = ask("CALL profile_cache.refresh()")
        if "recovery" not in refused and "read-only" not in refused:
            raise RuntimeError(f"refresh on the standby: {refused}")
        server.sql(database, "CALL profile_cache.refresh()")
        catch_up()
        expect("served from, after the primary's refresh", ask(one.format("served_from")), "cache")
        expect("wrong at the end", ask(WRONG), 0)
    finally:
        server.stop("fast", "standby")


def dump_and_restore(server, database):
    """A restored database serves the truth at once, and its cache after one refresh."""
    fill(server, database)
    server.sql(database, "UPDATE subscription_plan SET display_name = 'Pro!' WHERE id = 'pro'")
    restored = f"{database}_restored"
    server.create(restored)
    done = subprocess.run(
        [server.bindir / "pg_dump", "-d", database], env=server.env, text=True, capture_output=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    done = server.psql(restored, "-f", "-", input=done.stdout, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    expect("wrong after the restore", server.sql(restored, WRONG), 0)
    expect("verify after the restore", server.sql(restored, VERIFY), 0)
    server.sql(restored, "UPDATE user_profile SET full_name = 'Restored' WHERE id = 1")
    expect("wrong after a write", server.sql(restored, WRONG), 0)
    server.sql(restored, "CALL profile_cache.refresh()")
    expect("warnings", server.sql(restored, "SELECT warnings FROM profile_cache.status"), "{}")
    expect("pending after the refresh", server.sql(restored, PENDING), 0)
    expect("stale after the refresh", server.sql(restored, UNCACHED), 0)
    expect("wrong at the end", server.sql(restored, WRONG), 0)
    same = "SELECT md5(string_agg(get_profile(supabase_user_id)::text, '' ORDER BY supabase_user_id)) FROM user_profile WHERE id <> 1"
    expect("the same documents", server.sql(restored, same), server.sql(database, same))


def parallel_restore(server, database):
    """Parallel jobs of a restore meet in the event triggers, each with its own table locked: none fails."""
    fill(server, database)
    dump = server.dir / f"{database}.dump"
    counted = "SELECT (SELECT count(*) FROM pg_constraint), (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_index)"
    for command in [[server.bindir / "pg_dump", "-Fc", "-f", dump, "-d", database]] + [
        [server.bindir / "pg_restore", "-j", "4", "-d", f"{database}_{n}", dump] for n in range(3)
    ]:
        if command[0].name == "pg_restore":
            server.create(command[4])
        done = subprocess.run([str(c) for c in command], env=server.env, text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        if command[0].name == "pg_restore":
            expect("constraints, triggers, indexes", server.sql(command[4], counted), server.sql(database, counted))
            server.sql(command[4], "CALL profile_cache.refresh()")
            expect("warnings", server.sql(command[4], "SELECT warnings FROM profile_cache.status"), "{}")
            expect("stale after the refresh", server.sql(command[4], UNCACHED), 0)
            expect("wrong", server.sql(command[4], WRONG), 0)


def cancelled_refresh(server, database):
    """A refresh that is cancelled again and again loses nothing that it has committed."""
    fill(server, database, users=3000)
    server.sql(database, "SELECT profile_cache.invalidate_all()")
    for _ in range(200):
        try:
            server.sql(database, "SET statement_timeout = '40ms';\nCALL profile_cache.refresh(100)")
            break
        except RuntimeError as error:
            if "statement timeout" not in str(error):
                raise
    else:
        raise RuntimeError("no refresh came to its end")
    expect("stale at the end", server.sql(database, UNCACHED), 0)
    expect("wrong at the end", server.sql(database, WRONG), 0)


TESTS = [crash, crash_in_a_pass, standby, dump_and_restore, parallel_restore, cancelled_refresh]
