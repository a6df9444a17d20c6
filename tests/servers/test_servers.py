"""What takes more than sessions on one running server: a crash, a standby, dump and restore.

Each test gets the private server (lib/cluster.py) and the name of a fresh database, and raises
RuntimeError where the cache would serve anything but what the view returns.
"""

import functools
import re
import subprocess
import time

from lib.filled import DEMO, PENDING, UNCACHED, VERIFY, WRONG, Session, expect, fill, restore, survive, wait_for


def test_crash(server, database):
    """A prepared writer and noted lock holders outlive a crash: refresh notes them again by their XID."""
    fill(server, database)
    survive(server, database)
    server.sql(
        database,
        "BEGIN; UPDATE user_subscription SET plan_id = 'team' WHERE user_id = 1; PREPARE TRANSACTION 'writer';",
    )
    server.sql(database, "UPDATE subscription_plan SET display_name = 'Team+' WHERE id = 'team'")
    server.sql(database, "CALL profile_cache.refresh()")
    expect("epochs held up by the prepared writer", server.sql(database, PENDING + " WHERE kind = 'epoch'"), 1)
    held = "SELECT held_up_by FROM profile_cache.status"
    expect("held up by", server.sql(database, held), '{"prepared transaction writer"}')
    server.stop("immediate")
    server.start()
    expect("wrong after the crash", server.sql(database, WRONG), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    holders = "SELECT bool_and(holders[1] LIKE '-1/%') FROM profile_cache.epoch_progress"
    expect("the holder goes by its XID now", server.sql(database, holders), "t")
    expect("still held up", server.sql(database, PENDING + " WHERE kind = 'epoch'"), 1)
    # That name is of every run.
    server.stop("immediate")
    server.start()
    expect("held up by", server.sql(database, held), '{"prepared transaction writer"}')
    server.sql(database, "COMMIT PREPARED 'writer'")
    expect("wrong after COMMIT PREPARED", server.sql(database, WRONG), 0)
    expect("verify", server.sql(database, VERIFY), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    expect("pending at the end", server.sql(database, PENDING), 0)
    expect("stale at the end", server.sql(database, UNCACHED), 0)
    expect("wrong at the end", server.sql(database, WRONG), 0)


def test_crash_in_a_pass(server, database):
    """A refresh that dies between two batches goes on where it was."""
    fill(server, database)
    survive(server, database)
    server.sql(database, "UPDATE role SET permissions = '[1]' WHERE name = 'member'")
    steps = "SELECT phase, stored FROM profile_cache.refresh_step(50, 'epochs', NULL)"
    for _ in range(5):  # assigned, holders noted, pass begun, listed, a batch of it
        server.sql(database, steps)
    expect("a pass is under way", server.sql(database, "SELECT sum(cardinality(keys)) FROM profile_cache.claim"), 290)
    server.stop("immediate")
    server.start()
    expect("wrong after the crash", server.sql(database, WRONG), 0)
    server.sql(database, "CALL profile_cache.refresh(50)")
    expect("pending at the end", server.sql(database, PENDING), 0)
    expect("stale at the end", server.sql(database, UNCACHED), 0)
    expect("verify", server.sql(database, VERIFY), 0)


def test_standby(server, database):
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
        where = "SELECT count(*) > 0 AND bool_and(w LIKE '%CALL profile_cache.refresh() on the primary%') FROM profile_cache.status AS s, unnest(s.warnings) AS w"
        expect("status says where to refresh", ask(where), "t")
        refused = ask("CALL profile_cache.refresh()")
        if "recovery" not in refused and "read-only" not in refused:
            raise RuntimeError(f"refresh on the standby: {refused}")
        server.sql(database, "CALL profile_cache.refresh()")
        catch_up()
        expect("served from, after the primary's refresh", ask(one.format("served_from")), "cache")
        expect("wrong at the end", ask(WRONG), 0)
        # A profile for which the view fails: contained there, too.
        server.sql(
            database,
            """CREATE VIEW fails AS SELECT supabase_user_id, jsonb_build_object('n', 1 / nullif(id - 7, -7)) AS document FROM user_profile;
            SELECT profile_cache.attach(document => 'fails');""",
        )
        catch_up()
        named = "SELECT count(*), min(user_id::text) = min(supabase_user_id::text), min(problem) FROM profile_cache.verify(), user_profile WHERE id = 7"
        expect("a profile for which the view fails, on the standby", ask(named), "1|t|the view fails with SQLSTATE 22012")
    finally:
        server.stop("fast", "standby")


def test_dump_and_restore(server, database):
    """A restored database serves the truth at once, and its cache after one refresh."""
    fill(server, database)
    server.sql(database, "UPDATE subscription_plan SET display_name = 'Pro!' WHERE id = 'pro'")
    restored = f"{database}_restored"
    server.create(restored)
    restore(server, restored, server, database)
    # Without data the attachment is not known; what was excluded is.
    server.sql(database, "SELECT profile_cache.attach(exclude => '{phone}')")
    empty = f"{database}_empty"
    server.create(empty)
    schema = subprocess.run([server.bindir / "pg_dump", "--schema-only", "-d", database], env=server.env, text=True, capture_output=True).stdout
    done = server.psql(empty, "-f", "-", input=schema, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    expect("status after a restore without data", server.sql(empty, "SELECT warnings FROM profile_cache.status"), '{"nothing is attached: run SELECT profile_cache.attach()"}')
    done = server.psql(empty, "-c", "SELECT profile_cache.attach()", capture_output=True)
    if done.returncode or "no longer excluded, and so in every document from now on: phone" not in done.stderr:
        raise RuntimeError(f"attach after a restore without data: {done.stderr}")


def test_parallel_restore(server, database):
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


def test_cancelled_refresh(server, database):
    """A refresh that is cancelled again and again loses nothing that it has committed.

    Rules: E9, E22.
    """
    fill(server, database, users=3000)
    # Of everybody, by windows of the table; of those who have a plan, who are listed once for many steps.
    for change in ("SELECT profile_cache.invalidate_all()", "UPDATE subscription_plan SET display_name = display_name || '!'"):
        server.sql(database, change)
        cancelled = 0
        with Session(server, database) as session:
            for n in range(200):
                said = session.do(f"SET statement_timeout = '{60 + 5 * n}ms'; SET client_min_messages = warning; CALL profile_cache.refresh()")
                if not said:
                    break
                if "statement timeout" not in said:
                    raise RuntimeError(said)
                cancelled += 1
            else:
                raise RuntimeError("no refresh came to its end")
        if cancelled < 2:
            raise RuntimeError(f"after {change}: too fast to have been cancelled in the middle")
        expect("stale at the end", server.sql(database, UNCACHED), 0)
        expect("wrong at the end", server.sql(database, WRONG), 0)


def test_two_callers(server, database):
    """Two callers share the passes; the one that has the turn is killed in the middle, and the other takes it and comes to the end.

    Rules: E9, E13, E21, E22.
    """
    fill(server, database, users=15000)  # more than are listed at once
    # Of everybody, by windows of the table; of those who have a role, who are listed all at once.
    for change in ("TRUNCATE user_role", "UPDATE subscription_plan SET display_name = display_name || '!'"):
        server.sql(database, change)
        with Session(server, database) as first, Session(server, database) as second:
            callers = {session.do("SELECT pg_backend_pid()"): session for session in (first, second)}
            for session in callers.values():
                session.do("SET client_min_messages = warning")
                session.begin("CALL profile_cache.refresh()")
            wait_for(server, database, "some is listed, some of it done", "SELECT count(*) BETWEEN 1 AND 90 FROM profile_cache.claim")
            turn = "SELECT pid FROM pg_locks WHERE relation = 'profile_cache.pending'::regclass AND mode = 'ShareUpdateExclusiveLock'"
            killed = server.sql(database, turn)
            server.sql(database, f"SELECT pg_terminate_backend({killed}, 10000)")
            expect("wrong in the middle", server.sql(database, WRONG), 0)
            expect("what the other says", next(s for pid, s in callers.items() if pid != killed).end(), "")
        expect("pending at the end", server.sql(database, PENDING), 0)
        expect("claims at the end", server.sql(database, "SELECT count(*) FROM profile_cache.claim"), 0)
        expect("stale at the end", server.sql(database, UNCACHED), 0)
        expect("wrong at the end", server.sql(database, WRONG), 0)


def test_held_up(server, database):
    """Whoever holds refresh up is named, with his program and since when; after a crash nobody who has his name by chance."""
    fill(server, database, users=20)
    survive(server, database)
    warned = "SELECT w FROM profile_cache.status AS s, unnest(s.warnings) AS w WHERE w LIKE 'refresh waits for the end of%'"
    held = "SELECT held_up_by FROM profile_cache.status"
    with Session(server, database) as writer:
        pid = writer.do("SELECT pg_backend_pid()")
        writer.do("BEGIN; UPDATE user_profile SET phone = '1' WHERE id = 1")
        server.sql(database, "UPDATE role SET name = name || '!' WHERE id = 1")
        server.sql(database, "CALL profile_cache.refresh()")
        expect("held up by", server.sql(database, held), f'{{"pid {pid}"}}')
        said = server.sql(database, warned)
        if not re.fullmatch(rf"refresh waits for the end of pid {pid} \(psql\) since \S+Z: SELECT pg_terminate_backend\({pid}\)", said):
            raise RuntimeError(f"status: {said!r}")
        name = server.sql(database, "SELECT holders[1] FROM profile_cache.epoch_progress")
    server.stop("immediate")
    server.start()
    # Names come again in a new run of the server: some of these sessions have had that one.
    slot, number = (int(n) for n in name.split("/"))
    sessions = [Session(server, database) for _ in range(slot + 3)]
    try:
        for session in sessions:
            session.__enter__()
        for _ in range(number + 5):
            for session in sessions:
                mine = session.do("BEGIN; SELECT virtualtransaction FROM pg_locks WHERE pid = pg_backend_pid() LIMIT 1")
                if mine.splitlines()[-1] == name:
                    expect("held up by, after the crash", server.sql(database, held), "{}")
                    return
                session.do("ROLLBACK")
    finally:
        for session in sessions:
            session.__exit__(None, None, None)
    raise RuntimeError(f"nobody had the name {name} again")


def test_waiting_for_standby(server, database):
    """A commit that waits for a synchronous standby is not visible yet: a pending key is kept for it, too."""
    fill(server, database)
    replica = "SET session_replication_role = replica;\n"
    # Children of a profile that is not there; many transactions, so that one of them is the first by any order.
    child = "INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (9999, {}, now())"
    many = f"DO $$ BEGIN FOR i IN 1..40 LOOP {child.format('1')}; DELETE FROM user_role WHERE user_id = 9999; COMMIT; END LOOP; {child.format('1')}; END $$"
    insert = """INSERT INTO user_profile SELECT (jsonb_populate_record(p, '{"id": 9999, "email": "x", "supabase_user_id": "00000000-0000-0000-0000-000000009999"}')).* FROM user_profile AS p WHERE id = 1"""
    with Session(server, database) as holder, Session(server, database) as waits:
        holder.do("BEGIN; UPDATE user_profile SET phone = '1' WHERE id = 1")
        server.sql(database, replica + many)
        server.sql(database, "CALL profile_cache.refresh()")
        holder.do("COMMIT")
        server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            server.sql("postgres", "SELECT pg_reload_conf()")
            wait_for(server, "postgres", "the setting", "SELECT current_setting('synchronous_standby_names') = 'nobody'")
            waits.do("SET synchronous_commit = on")
            waits.begin(insert)
            wait_for(server, "postgres", "the commit waits", f"SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'SyncRep'")
            server.sql(database, replica + child.format("2"))
            server.sql(database, "CALL profile_cache.refresh()")
        finally:
            server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
            server.sql("postgres", "SELECT pg_reload_conf()")
        expect("the commit", waits.end(), "")
    expect("roles", server.sql(database, "SELECT count(*) FROM user_role WHERE user_id = 9999"), 2)
    expect("wrong after the commit", server.sql(database, WRONG), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    expect("wrong at the end", server.sql(database, WRONG), 0)
    expect("verify at the end", server.sql(database, VERIFY), 0)
    expect("pending at the end", server.sql(database, PENDING), 0)


def logical(test):
    """A server test with wal_level = logical."""

    @functools.wraps(test)
    def run(server, database):
        server.stop("fast")
        server.start(wal_level="logical")
        try:
            test(server, database)
        finally:
            for name in (database, f"{database}_other"):
                server.sql(
                    "postgres",
                    f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '{name}' AND active;",
                )
            for name in (database, f"{database}_other"):
                for subscription in server.sql(name, "SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())").split():
                    server.sql(name, f"ALTER SUBSCRIPTION {subscription} DISABLE")
                    server.sql(name, f"ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE)")
                    server.sql(name, f"DROP SUBSCRIPTION {subscription}")
            wait_for(server, "postgres", "slots are free", "SELECT count(*) = 0 FROM pg_replication_slots WHERE active")
            server.sql("postgres", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
            server.stop("fast")
            server.start()

    return run


def replicate(server, publisher, subscriber, name, tables):
    """The subscriber follows these tables of the publisher, which are the same now."""
    server.sql(publisher, f"CREATE PUBLICATION {name} FOR TABLE {tables}")
    server.sql(publisher, f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
    server.sql(
        subscriber,
        f"""CREATE SUBSCRIPTION {name} CONNECTION 'host={server.dir} port={server.port} user={server.user} dbname={publisher}'
        PUBLICATION {name} WITH (create_slot = false, copy_data = false, slot_name = '{name}')""",
    )


@logical
def test_subscriber_in_the_middle(server, database):
    """A publication drops a used table in the middle of an apply transaction: what that commits later is not forgotten.

    Rules: E15.
    """
    dropped_in_the_middle(server, database)


@logical
def test_subscriber_out_of_sight(server, database):
    """The same while a column of ours is renamed away, so that the attachment cannot be used."""
    dropped_in_the_middle(
        server, database, "ALTER TABLE user_profile RENAME cached_profile TO elsewhere", "ALTER TABLE user_profile RENAME elsewhere TO cached_profile"
    )


def dropped_in_the_middle(server, database, *around):
    """`around`: what else is done, before the table is dropped and after it."""
    publisher = f"{database}_other"
    for file in ("tables.sql", "data.sql"):
        server.psql(database, "-v", "users=60", "-f", DEMO / file, capture_output=True)
    server.sql(database, "CREATE TABLE other (id int PRIMARY KEY, n int); INSERT INTO other VALUES (1, 1)")
    server.create(publisher, template=database)
    server.sql(database, "CREATE EXTENSION profile_cache; SELECT profile_cache.attach();")
    server.sql(database, "CALL profile_cache.refresh()")
    replicate(server, publisher, database, "middle", "user_subscription, other")
    followed = "SELECT count(*) = 2 FROM pg_subscription_rel WHERE srsubstate = 'r'"
    wait_for(server, database, "the subscription", followed)
    if around:  # attached when it is a target already, so that nothing is pending of before
        server.sql(database, "SELECT profile_cache.detach(); SELECT profile_cache.attach()")
    expect("served from, as a target", server.sql(database, "SELECT profile_cache.explain(supabase_user_id) ->> 'served_from' FROM user_profile WHERE id = 2"), "view")
    target = "SELECT count(*) FROM profile_cache.status AS s, unnest(s.warnings) AS w WHERE w LIKE '%is a target of logical replication%DROP SUBSCRIPTION%' AND w NOT LIKE '%attach%'"
    expect("status says what ends that", server.sql(database, target), 1)
    with Session(server, database) as holder:
        holder.do("BEGIN; UPDATE other SET n = 0 WHERE id = 1")
        server.sql(publisher, "BEGIN; UPDATE user_subscription SET plan_id = 'team' WHERE user_id = 2; UPDATE other SET n = 2 WHERE id = 1; COMMIT;")
        wait_for(
            server, database, "apply waits in the middle",
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%worker' AND wait_event_type = 'Lock'",
        )  # fmt: skip
        server.sql(publisher, "ALTER PUBLICATION middle DROP TABLE user_subscription")
        for statement in (*around[:1], "ALTER SUBSCRIPTION middle REFRESH PUBLICATION", *around[1:]):
            server.sql(database, statement)
        # The table is an ordinary one again.
        server.sql(database, "CALL profile_cache.refresh()")
        expect("wrong while apply is under way", server.sql(database, WRONG), 0)
        holder.do("ROLLBACK")
        wait_for(server, database, "apply has committed", "SELECT n = 2 FROM other")
    expect("applied", server.sql(database, "SELECT plan_id FROM user_subscription WHERE user_id = 2"), "team")
    expect("wrong after apply's commit", server.sql(database, WRONG), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    expect("wrong at the end", server.sql(database, WRONG), 0)
    expect("verify", server.sql(database, VERIFY), 0)


@logical
def test_decoded(server, database):
    """Our writes are ordinary updates to logical decoding, with REPLICA IDENTITY FULL too: a subscriber follows them."""
    fill(server, database, users=60)
    subscriber = f"{database}_other"
    server.sql(database, "ALTER TABLE user_profile REPLICA IDENTITY FULL")
    server.create(subscriber)
    server.sql(subscriber, "CREATE EXTENSION IF NOT EXISTS plpgsql")
    dump = subprocess.run(
        [str(server.bindir / "pg_dump"), "-t", "user_profile", "-d", database], env=server.env, text=True, capture_output=True
    )
    # The table with all that is stored in it, and nothing of ours.
    lines, skip = [], False
    for line in dump.stdout.splitlines():
        skip = skip or "profile_cache" in line and "TRIGGER" in line
        if not skip:
            lines.append(line)
        skip = skip and not line.endswith(";")
    done = server.psql(subscriber, "-f", "-", input="\n".join(lines), capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    replicate(server, database, subscriber, "decoded", "user_profile")
    wait_for(server, subscriber, "the subscription", "SELECT count(*) = 1 FROM pg_subscription_rel WHERE srsubstate = 'r'")
    server.sql(database, "UPDATE user_subscription SET plan_id = 'team' WHERE user_id < 10")
    server.sql(database, "UPDATE user_profile SET full_name = 'changed' WHERE id < 5")
    server.sql(database, "INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (3, 5, now())")
    server.sql(database, "UPDATE role SET permissions = '[1]' WHERE name = 'member'")
    server.sql(database, "CALL profile_cache.refresh()")
    expect("wrong", server.sql(database, WRONG), 0)
    same = "SELECT md5(string_agg(p::text, '' ORDER BY id)) FROM user_profile AS p"
    wanted = server.sql(database, same)
    wait_for(server, subscriber, "the subscriber has what is stored", same, wanted)


def test_sign_ups(server, database):
    """Six clients sign up users of their own at SERIALIZABLE: none is told to try again."""
    fill(server, database, users=300)
    # Each client's users have a place of their own in every index, so that PostgreSQL itself finds nothing between them.
    insert = """INSERT INTO user_profile SELECT (jsonb_populate_record(p, jsonb_build_object('id', {n}, 'email', lpad({n}::text, 9, '0'),
        'supabase_user_id', lpad(({n})::text, 9, '0') || '-0000-0000-0000-00000000000', 'full_name', {n}::text,
        'cached_profile', NULL, 'cached_profile_epoch', NULL))).* FROM user_profile AS p WHERE p.id = 1"""
    key = "(lpad({n}::text, 32, '0'))"
    insert = insert.replace("lpad(({n})::text, 9, '0') || '-0000-0000-0000-00000000000'", key)
    role = "INSERT INTO user_role (id, user_id, role_id, assigned_at) VALUES ({n}, {n}, 1, now())"
    plan = """INSERT INTO user_subscription (id, user_id, plan_id, status, current_period_start, current_period_end, stripe_subscription_id)
        VALUES ({n}, {n}, 'pro', 'active', now(), now() + interval '1 day', lpad({n}::text, 9, '0'))"""
    server.sql(
        database,
        "DO $$ DECLARE c int; k int; n int; BEGIN FOR c IN 1..6 LOOP FOR k IN 1..800 LOOP n := c * 1000000 + k * 100; "
        + "; ".join(s.format(n="n") for s in (insert, role, plan)) + "; END LOOP; END LOOP; END $$",
    )  # fmt: skip
    server.sql(database, "VACUUM ANALYZE;")
    server.sql(database, "CALL profile_cache.refresh()")

    def clients(offset):
        running = []
        for client in range(1, 7):
            script = "".join(
                "BEGIN ISOLATION LEVEL SERIALIZABLE;\n" + ";\n".join(s.format(n=client * 1000000 + (300 + k) * 100 + offset) for s in (insert, plan, role)) + ";\nCOMMIT;\n"
                for k in range(40)
            )
            psql = subprocess.Popen(
                [str(server.bindir / "psql"), "-Xqd", database], env=server.env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            running.append((psql, script))
        for psql, script in running:
            psql.stdin.write(script)
            psql.stdin.close()
        return sum(psql.stdout.read().count("could not serialize") for psql, _ in running)

    refused = sum(clients(round) for round in range(1, 4))
    expect("wrong after the sign-ups", server.sql(database, WRONG), 0)
    expect("verify", server.sql(database, VERIFY), 0)
    expect("sign-ups of 720 that were told to try again", refused, 0)


def test_cancelled_commit(server, database):
    """A cancel that comes while the view is computed at a commit fails the commit, as it would any other wait.

    Rules: W10.
    """
    fill(server, database, users=20)
    server.sql(
        database,
        """CREATE FUNCTION slow(float8) RETURNS void LANGUAGE internal IMMUTABLE STRICT AS 'pg_sleep';
        CREATE VIEW document AS SELECT supabase_user_id, jsonb_build_object('name', full_name,
            'slow', CASE WHEN full_name = 'slow' THEN slow(id * 30.0)::text END) AS document FROM user_profile;
        SELECT profile_cache.attach('user_profile', document => 'document');""",
    )
    server.sql(database, "CALL profile_cache.refresh()")
    for how in ("pg_cancel_backend", "pg_terminate_backend"):
        with Session(server, database) as writer:
            pid = writer.do("SELECT pg_backend_pid()")
            writer.do("BEGIN; UPDATE user_profile SET full_name = 'slow' WHERE id = 1")
            writer.begin("COMMIT")
            wait_for(server, "postgres", "the commit computes", f"SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {pid}")
            server.sql("postgres", f"SELECT {how}({pid})")
            said = writer.end()
            if "canceling statement" not in said and "terminating connection" not in said:
                raise RuntimeError(f"COMMIT after {how}: {said!r}")
        expect(f"written after {how}", server.sql(database, "SELECT count(*) FROM user_profile WHERE full_name = 'slow'"), 0)
        expect("failures", server.sql(database, "SELECT count(*) FROM profile_cache.failure"), 0)
    # And so does verify(), which contains what the view raises.
    server.sql(database, "SET profile_cache.max_immediate = 0; UPDATE user_profile SET full_name = 'slow' WHERE id = 1;")
    with Session(server, database) as session:
        session.do("SET statement_timeout = '300ms'")
        said = session.do("SELECT problem FROM profile_cache.verify()")
        if "canceling statement due to statement timeout" not in said:
            raise RuntimeError(f"verify() beyond statement_timeout: {said!r}")


def test_full_lock_table(server, database):
    """Where the lock table is full at a commit, the commit goes through or fails as PostgreSQL's own would; nothing is stale."""
    data = "small"
    server.run_server_command(server.bindir / "initdb", "-D", server.dir / data, "-U", server.user, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
    server.start(data, port="5434", max_connections="12", max_locks_per_transaction="10", max_prepared_transactions="0", max_wal_senders="0", autovacuum="off")
    small = {"PGPORT": "5434"}

    def sql(text, database="postgres"):
        done = subprocess.run([str(server.bindir / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database], env=server.env | small, text=True, input=text, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    try:
        sql((DEMO / "tables.sql").read_text())
        sql((DEMO / "data.sql").read_text().replace(":users", "40"))
        sql("CREATE EXTENSION profile_cache")
        sql("SELECT profile_cache.attach()")
        sql("CALL profile_cache.refresh()")
        sql("DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('CREATE TABLE more%s (id int)', i); COMMIT; END LOOP; END $$")
        outcomes = []
        for loaded in (True, False):
            for statement in (
                "INSERT INTO user_role (user_id, role_id, assigned_at) SELECT 3, id, now() FROM role WHERE id > 1 AND id NOT IN (SELECT role_id FROM user_role WHERE user_id = 3) LIMIT 1",
                "UPDATE user_profile SET full_name = full_name || '!' WHERE id = 3",
                "UPDATE role SET description = description || '!' WHERE id = 1",
                "UPDATE user_subscription SET status = 'active' WHERE user_id IN (1, 2)",
            ):
                with Session(server, "postgres", **small) as app, Session(server, "postgres", **small) as filler:
                    if loaded:
                        app.do("SELECT count(get_profile(supabase_user_id)) FROM user_profile")
                    # The locks that a backend may have without the table are taken.
                    app.do("BEGIN; " + "; ".join(f"SELECT * FROM more{i}" for i in range(1, 17)))
                    said = app.do(statement)
                    if said:
                        raise RuntimeError(f"{statement}: {said}")
                    filler.do("BEGIN; DO $$ BEGIN FOR i IN 1..100000 LOOP PERFORM pg_advisory_xact_lock(i); END LOOP; EXCEPTION WHEN out_of_memory THEN NULL; END $$")
                    # A subtransaction's end gave them back: one by one then.
                    for i in range(1, 400):
                        if "out of shared memory" in filler.do(f"SAVEPOINT s; SELECT pg_advisory_xact_lock_shared({i})"):
                            filler.do("ROLLBACK TO s")
                            break
                        filler.do("RELEASE s")
                    said = app.do("COMMIT")
                    outcomes.append(said.splitlines()[0] if said else "committed")
                    filler.do("ROLLBACK")
                expect(f"wrong after {statement}", sql(WRONG), 0)
                expect("verify", sql(VERIFY), 0)
                sql("CALL profile_cache.refresh()")
                expect("wrong after the refresh", sql(WRONG), 0)
        if other := set(outcomes) - {"committed", "ERROR:  out of shared memory"}:
            raise RuntimeError(f"commits failed otherwise: {sorted(other)}")
    finally:
        server.stop("fast", data)


def test_other_encoding(server, database):
    """Keys travel as UTF-8: in a database of another encoding attach() refuses, and what was restored there is not read."""

    def refused(latin, sql):
        try:
            server.sql(latin, "\\set VERBOSITY verbose\n" + sql)
        except RuntimeError as error:
            if "0A000: profile_cache needs a database in UTF8, and this one is in LATIN1" in str(error):
                return
            raise
        raise RuntimeError(f"not refused: {sql}")

    fill(server, database, users=30)
    dump = subprocess.run([server.bindir / "pg_dump", "-d", database], env=server.env, capture_output=True, text=True).stdout
    fresh, restored = f"{database}_fresh", f"{database}_restored"
    for latin in (fresh, restored):
        server.sql("postgres", f"""DROP DATABASE IF EXISTS {latin};
CREATE DATABASE {latin} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';""")
    server.sql(fresh, "CREATE EXTENSION profile_cache; CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid NOT NULL UNIQUE)")
    refused(fresh, "SELECT profile_cache.attach()")
    done = server.psql(restored, "-f", "-", input=dump, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    key = "(SELECT supabase_user_id FROM user_profile ORDER BY id LIMIT 1)"
    for sql in (f"SELECT get_profile({key})", f"SELECT profile_cache.explain({key})", "SELECT * FROM profile_cache.verify()", "CALL profile_cache.refresh()"):
        refused(restored, sql)
    server.sql(restored, "UPDATE user_profile SET full_name = 'goes on' WHERE id = 1")
    expect("status says so", server.sql(restored, "SELECT warnings::text LIKE '%in UTF8%' FROM profile_cache.status"), "t")


def test_slow_documents(server, database):
    """A refresh under a limit of time that is far too short for it gets on a little with each call, and names the limit."""
    fill(server, database, users=400)
    server.sql(database, """
SELECT profile_cache.detach();
CREATE VIEW slow AS SELECT p.supabase_user_id, jsonb_build_object('email', p.email, 'sum', md5(repeat(p.email, 100000))) AS document FROM user_profile AS p;
SELECT profile_cache.attach(document => 'slow')""")
    done, calls = [0], 0
    while done[-1] < 400:
        calls += 1
        if calls > 60:
            raise RuntimeError(f"no end in sight: {done}")
        call = server.psql(
            database, "-c", "SET statement_timeout = '300ms'", "-c", "CALL profile_cache.refresh()", capture_output=True
        )
        if "statement_timeout ends this refresh after 300 ms" not in call.stderr:
            raise RuntimeError(f"the limit is not named: {call.stderr}")
        outcome = server.sql(database, "SELECT coalesce(completed_at, '-infinity') >= began_at, outcome FROM profile_cache.last_refresh")
        expect("how it ended", outcome, "f|" if call.returncode else "t|")
        done.append(int(server.sql(database, "SELECT count(*) FROM user_profile WHERE cached_profile_epoch IS NOT NULL")))
        if call.returncode and done[-1] <= done[-2]:
            raise RuntimeError(f"a call that did nothing: {done}")
    if calls < 3:
        raise RuntimeError("the documents were not slow: this shows nothing")


def test_one_refresh_at_a_time(server, database):
    """A second caller who finds nothing to take ends soon and says who is at it; whoever is killed leaves no turn behind.

    Rules: E13.
    """
    fill(server, database, users=30)
    server.sql(database, "SELECT profile_cache.invalidate_all()")
    with Session(server, database, PGAPPNAME="nightly") as first:
        pid = first.do("SELECT pg_backend_pid()")
        first.do("SELECT FROM profile_cache.refresh_step(1, 'begin', NULL)")
        second = server.psql(database, "-c", "CALL profile_cache.refresh()", capture_output=True)
        if f"another refresh is under way: pid {pid}, application 'nightly'" not in second.stderr:
            raise RuntimeError(f"it does not say who: {second.stderr}")
        # Gone without a word.
        server.sql(database, f"SELECT pg_terminate_backend({pid}, 10000)")
    # Taken, and the session ended between two of its transactions.
    server.sql(database, "SELECT profile_cache.refresh_step(1, 'begin', NULL)")
    held = "SELECT count(*) FROM pg_locks WHERE relation = 'profile_cache.pending'::regclass AND mode = 'ShareUpdateExclusiveLock'"
    expect("turns without a session", server.sql(database, held), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    expect("stale at the end", server.sql(database, UNCACHED), 0)


def test_autovacuum(server, database):
    """attach gets past an autovacuum of a large table, and names one that may not be cancelled.

    Rules: D10.
    """
    for file in ("tables.sql", "data.sql"):
        server.psql(database, "-v", "users=2000", "-f", DEMO / file, capture_output=True)
    server.sql(database, "CREATE EXTENSION profile_cache")
    # One page, one pause: it takes as long as it is let.
    slow = "autovacuum_enabled = on, autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
    worker = f"SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = '{database}' AND query ~ '{{}}'"
    tables = ("user_subscription", "user_profile")
    server.stop("fast")
    server.start(autovacuum_naptime="1s", log_autovacuum_min_duration="0")
    try:
        for table in tables:
            server.sql(database, f"ALTER TABLE {table} SET ({slow}); UPDATE {table} SET id = id; UPDATE {table} SET id = id;")
        for table in tables:
            wait_for(server, database, f"autovacuum of {table}", f"SELECT count(*) > 0 FROM ({worker.format(table)}) AS w")
        server.sql(database, "SELECT profile_cache.attach()")
        server.sql(database, "CALL profile_cache.refresh()")
        expect("wrong", server.sql(database, WRONG), 0)
        expect("cancelled", server.log().count("canceling autovacuum task") >= len(tables), True)
        # Against wraparound: nobody cancels that.
        server.sql(database, "DO $$ BEGIN FOR i IN 1..100100 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
        server.sql(database, "ALTER TABLE user_subscription SET (autovacuum_freeze_max_age = 100000); UPDATE user_subscription SET id = id")
        wait_for(server, database, "against wraparound", f"SELECT count(*) > 0 FROM ({worker.format('user_subscription .to prevent wraparound')}) AS w")
        try:
            server.sql(database, "SELECT profile_cache.detach()")
            raise RuntimeError("detach went past a vacuum against wraparound")
        except RuntimeError as error:
            said = str(error)
            if not all(part in said for part in ("(autovacuum: VACUUM", "(to prevent wraparound)), since", "holds ShareUpdateExclusiveLock on public.user_subscription")):
                raise
    finally:
        server.stop("fast")
        server.start()


def test_backtraces(server, database):
    """With RUST_BACKTRACE in the server's environment an error, ours or the view's, is what it is without."""
    fill(server, database, users=10)
    server.sql(database, "ALTER TABLE user_profile ADD COLUMN divisor int NOT NULL DEFAULT 1")
    server.sql(database, "CREATE VIEW dividing AS SELECT supabase_user_id, jsonb_build_object('n', 1 / divisor) AS document FROM user_profile")
    server.sql(database, "SELECT profile_cache.detach(); SELECT profile_cache.attach(document => 'dividing');")
    server.sql(database, "UPDATE user_profile SET divisor = 0 WHERE id = 1")
    ours = "SELECT profile_cache.attach('role')"
    theirs = "SELECT get_profile(supabase_user_id) FROM user_profile WHERE id = 1"

    def said(sql):
        try:
            server.sql(database, "\\set VERBOSITY verbose\n" + sql)
        except RuntimeError as error:
            return str(error)
        raise RuntimeError(f"no error: {sql}")

    without = [said(ours), said(theirs)]
    for preloaded in ({}, {"shared_preload_libraries": "profile_cache"}):
        for name, value in (("RUST_BACKTRACE", "full"), ("RUST_LIB_BACKTRACE", "1")):
            server.stop("fast")
            server.env[name] = value
            try:
                server.start(**preloaded)
                expect(f"errors with {name}", [said(ours), said(theirs)], without)
                # Who else looks at it finds it.
                seen = server.sql(database, f"SELECT get_profile(NULL); CREATE TEMP TABLE seen (v text); COPY seen FROM PROGRAM 'echo ${name}'; SELECT v FROM seen")
                expect(f"{name} of a child process", seen.strip(), value)
            finally:
                del server.env[name]
                server.stop("fast")
                server.start()


def test_stopped_early(server, database):
    """A function stops a statement before its end (SPI's row limit): what it has changed is pending all the same.

    Rules: W12.
    """
    fill(server, database, users=20)
    change = "UPDATE user_subscription SET plan_id = 'team' WHERE user_id < 5 RETURNING 1"
    server.sql(
        database,
        f"""CREATE EXTENSION plperl;
        CREATE FUNCTION stops() RETURNS void LANGUAGE plperl AS $$ spi_exec_query({change!r}, 1); return; $$""",
    )
    server.sql(database, "SELECT stops()")
    expect("changed", server.sql(database, "SELECT count(*) > 0 FROM user_subscription WHERE plan_id = 'team' AND user_id < 5"), "t")
    expect("wrong after the statement that was stopped", server.sql(database, WRONG), 0)
    expect("pending", server.sql(database, "SELECT string_agg(reason, ', ') FROM profile_cache.pending"), "a statement ended without its trigger")
    # In the transaction itself, too.
    own = "BEGIN; SELECT stops(); {};"
    expect("wrong before its commit", server.sql(database, own.format(WRONG)).strip(), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    expect("pending at the end", server.sql(database, PENDING), 0)
    expect("stale at the end", server.sql(database, UNCACHED), 0)
    expect("wrong at the end", server.sql(database, WRONG), 0)
