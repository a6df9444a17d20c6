"""From one major version to another: pg_upgrade, and dump and restore. Nothing is stale or lost, nobody has to detach, and
after pg_upgrade refresh computes what was pending before, and nothing else.

Run where the major under test (--pg) is newer than the one that is moved from (--from).
"""

import collections

from lib.cluster import Cluster
from lib.filled import KINDS, OBJECTS, PENDING, UNCACHED, VERIFY, WRONG, Session, expect, fill, leave_pending, restore

# From where each user is served, and what is stored for whom.
SERVED = "SELECT string_agg(profile_cache.explain(supabase_user_id) ->> 'served_from', ',' ORDER BY id) FROM user_profile"
STORED = "SELECT id, ctid, xmin, cached_profile_epoch FROM user_profile ORDER BY id"
NUMBERS = "SELECT p.oid FROM pg_proc AS p WHERE p.proname = '{}'"


def upgrade(old, new):
    """The old server's data, to be the new one's. Both run, and so does the new one afterwards."""
    for name, value in new.library.items():
        new.sql("postgres", f"ALTER SYSTEM SET {name} = '{value}'")
    old.stop("fast")
    new.stop("fast")
    command = [new.bindir / "pg_upgrade", "--old-bindir", old.bindir, "--new-bindir", new.bindir, "--old-datadir", old.dir / "data",
               "--new-datadir", new.dir / "data", "--socketdir", new.dir, "--username", new.user, "--old-options=-c fsync=off", "--new-options=-c fsync=off"]  # fmt: skip
    try:
        new.run_server_command(*command)
    except RuntimeError as error:
        found = (new.dir / "data/pg_upgrade_output.d").rglob("*.*")
        told = [f"{path}:\n" + "\n".join(path.read_text().splitlines()[-20:]) for path in found if path.suffix in (".txt", ".log")]
        raise RuntimeError("\n".join([str(error), *told])) from None
    new.start()


def test_pg_upgrade(server, older):
    """Each database has something else pending; what is cached and has nothing pending is served from the cache at once.

    Rules: D3.
    """
    # Transaction ids have more than 32 bits: the new server must go on with all of them.
    older.stop("fast")
    older.run_server_command(older.bindir / "pg_resetwal", "-e", "1", "-D", older.dir / "data")
    older.start()
    few, all_kinds, code = "few", "all_kinds", "code"
    for name in (few, all_kinds, code):
        older.create(name)
        fill(older, name)
    # In the middle of things: a key; a change that a writer keeps refresh from forgetting, after a complete pass.
    with Session(older, few) as writer:
        writer.do("BEGIN; UPDATE user_profile SET phone = '1' WHERE id = 1; UPDATE user_subscription SET plan_id = 'team' WHERE user_id = 1")
        older.sql(few, "UPDATE subscription_plan SET display_name = 'Team+' WHERE id = 'team'")
        older.sql(few, "CALL profile_cache.refresh()")
        older.sql(few, "SELECT profile_cache.invalidate(supabase_user_id) FROM user_profile WHERE id IN (2, 3)")
        writer.do("COMMIT")
    leave_pending(older, all_kinds)
    # DDL that nobody has looked at, on a function: pg_upgrade gives these other numbers.
    older.sql(code, """CREATE FUNCTION shown(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1;
        CREATE VIEW own AS SELECT supabase_user_id, jsonb_build_object('name', shown(full_name)) AS document FROM user_profile;
        SELECT profile_cache.attach(document => 'own')""")
    older.sql(code, "CALL profile_cache.refresh()")
    with Session(older, code) as holder:
        holder.do("BEGIN; LOCK TABLE profile_cache.attachment IN SHARE MODE")
        older.sql(code, "CREATE OR REPLACE FUNCTION shown(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN upper($1)")
        holder.do("COMMIT")
    numbered = older.sql(code, NUMBERS.format("shown"))
    before = {name: {sql: older.sql(name, sql) for sql in (KINDS, SERVED, STORED)} for name in (few, all_kinds, code)}
    wrong = dict.fromkeys(before, WRONG) | {code: WRONG.replace("profile_document", "own")}
    ids = "SELECT pg_current_xact_id()"
    last = older.sql(few, ids)

    with Cluster(server.major, initdb=older.initdb) as new:
        new.library = server.library
        upgrade(older, new)
        expect("transaction ids go on", int(new.sql(few, ids)) > int(last), True)
        # Otherwise this shows nothing.
        expect("the function has another number", new.sql(code, NUMBERS.format("shown")) == numbered, False)
        fresh = "fresh"
        new.create(fresh)
        new.sql(fresh, "CREATE EXTENSION profile_cache")
        for name in before:
            expect(f"wrong in {name}", new.sql(name, wrong[name]), 0)
            expect(f"verify in {name}", new.sql(name, VERIFY), 0)
            for sql, was in before[name].items():
                expect(f"{sql} in {name}", new.sql(name, sql), was)
            differ = set(new.sql(name, OBJECTS).splitlines()) ^ set(new.sql(fresh, OBJECTS).splitlines())
            expect("objects, moved and fresh", sorted(differ), [])
        served = collections.Counter(new.sql(few, SERVED).split(","))
        if served["cache"] < 250 or not served["view"]:
            raise RuntimeError(f"served from: {served}")
        # Somebody else's DDL comes first, by which all that DDL may be about is written down by its new numbers.
        for name in before:
            new.sql(name, "CREATE TABLE other ()")
            expect("written down", new.sql(name, "SELECT count(DISTINCT server) FROM profile_cache.reached"), 1)
        for name in before:
            expect("wrong before the refresh", new.sql(name, wrong[name]), 0)
            new.sql(name, "UPDATE user_subscription SET plan_id = 'pro' WHERE user_id = 9; UPDATE user_profile SET full_name = 'Moved' WHERE id = 8")
            expect("wrong after a write", new.sql(name, wrong[name]), 0)
            new.sql(name, "CALL profile_cache.refresh()")
            expect(f"wrong in {name} at the end", new.sql(name, wrong[name]), 0)
            expect("pending at the end", new.sql(name, PENDING), 0)
            expect("stale at the end", new.sql(name, UNCACHED), 0)
            expect("verify", new.sql(name, VERIFY), 0)
            expect("warnings", new.sql(name, "SELECT warnings FROM profile_cache.status"), "{}")
        # Refresh has written no more than it had to.
        rows = set(before[few][STORED].splitlines()) & set(new.sql(few, STORED).splitlines())
        if len(rows) < 250:
            raise RuntimeError(f"only {len(rows)} documents are as they were")
        # DDL is noticed.
        new.sql(all_kinds, "ALTER TYPE standing RENAME VALUE 'fresh' TO 'newest'")
        new.sql(code, "CREATE OR REPLACE FUNCTION shown(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower($1)")
        for name in before:
            expect("wrong after DDL", new.sql(name, wrong[name]), 0)
        if crashes := new.crashes() + older.crashes():
            raise RuntimeError("\n".join(crashes))


def test_dump_to_newer(server, older, database):
    """By the newer major's pg_dump: right at once, and cached after one refresh."""
    older.create(database)
    fill(older, database)
    leave_pending(older, database)
    # Child of nobody, which a restore refuses.
    older.sql(database, "SET session_replication_role = replica; DELETE FROM user_role WHERE user_id = 9999")
    restore(server, database, older, database)
