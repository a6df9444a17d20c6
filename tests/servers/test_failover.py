"""Another server goes on where one was: a standby that is promoted, the old primary that follows it, a point in time that
is recovered. What is served there is what the view says there, and nothing is trusted that the other server did after
the two had parted.
"""

import contextlib
import copy
import subprocess

import pytest

from lib.cluster import OUTPUT, Cluster
from lib.filled import PENDING, UNCACHED, VERIFY, WRONG, Session, expect, fill, wait_for

DOCUMENTS = "SELECT md5(string_agg(supabase_user_id || document::text, ' ' ORDER BY supabase_user_id)) FROM profile_document"
# Stored documents that the attachment could trust and that no refresh of this server's has numbered.
FOREIGN = "SELECT count(*) FROM user_profile WHERE cached_profile_epoch > (SELECT current FROM profile_cache.epoch)"
NEXT = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
HELD = "SELECT held_up_by FROM profile_cache.status"


@pytest.fixture
def primary(server):
    """A server of the test's own, whose data can be rewound, with what a standby and an archive need."""
    with Cluster(server.major, initdb=["--data-checksums"]) as cluster:
        cluster.library = server.library
        cluster.stop("fast")
        yield cluster
        (OUTPUT / "failover.log").write_text(cluster.log())
        if crashes := cluster.crashes():
            raise RuntimeError("\n".join(crashes))


def at(server, port):
    """The same programs, for the server on another port."""
    other = copy.copy(server)
    other.env = server.env | {"PGPORT": port}
    return other


def catch_up(primary, standby):
    lsn = primary.sql("postgres", "SELECT pg_current_wal_insert_lsn()")
    wait_for(standby, "postgres", "the standby catches up", f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'")


def in_the_middle(server, database):
    """A pass under way, of an epoch that a prepared transaction holds up; a pending key; a change without a number."""
    server.sql(database, "BEGIN; UPDATE user_subscription SET plan_id = 'team' WHERE user_id = 1; PREPARE TRANSACTION 'writer';")
    server.sql(database, "UPDATE subscription_plan SET display_name = 'Team+' WHERE id = 'team'; SELECT profile_cache.invalidate_all()")
    for _ in range(5):  # assigned, holders noted, pass begun, listed, a batch of it
        server.sql(database, "SELECT FROM profile_cache.refresh_step(50, 'epochs', NULL)")
    expect("a pass is under way", server.sql(database, "SELECT count(*) > 0 FROM profile_cache.claim"), "t")
    server.sql(database, "SELECT profile_cache.invalidate(supabase_user_id) FROM user_profile WHERE id = 2; UPDATE role SET permissions = '[1]' WHERE name = 'member'")


def goes_on(server, database):
    """Right from the first read on; drained but for whom the prepared transaction holds up, and drained when that is over."""
    expect("wrong", server.sql(database, WRONG), 0)
    expect("verify", server.sql(database, VERIFY), 0)
    expect("stamps of elsewhere", server.sql(database, FOREIGN), 0)
    # Users whom the other server has changed in its own way, by transactions of the same numbers.
    server.sql(database, "UPDATE subscription_plan SET display_name = 'Here' WHERE id = 'pro'")
    server.sql(database, "UPDATE user_profile SET full_name = 'Here' WHERE id BETWEEN 2 AND 19")
    server.sql(database, "UPDATE user_subscription SET plan_id = 'team' WHERE user_id BETWEEN 10 AND 30")
    expect("wrong after writes", server.sql(database, WRONG), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    expect("held up by", server.sql(database, HELD), '{"prepared transaction writer"}')
    expect("wrong after the refresh", server.sql(database, WRONG), 0)
    server.sql(database, "COMMIT PREPARED 'writer'")
    expect("wrong after COMMIT PREPARED", server.sql(database, WRONG), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    expect("pending at the end", server.sql(database, PENDING), 0)
    expect("stale at the end", server.sql(database, UNCACHED), 0)
    expect("wrong at the end", server.sql(database, WRONG), 0)
    expect("verify at the end", server.sql(database, VERIFY), 0)
    expect("warnings", server.sql(database, "SELECT warnings FROM profile_cache.status"), "{}")
    expect("stamps of elsewhere", server.sql(database, FOREIGN), 0)


def go_astray(server, database):
    """What nobody else is to hear of: changes of all kinds, computed and trusted here."""
    server.sql(database, "COMMIT PREPARED 'writer'")
    server.sql(database, "UPDATE subscription_plan SET display_name = display_name || ' (astray)'; UPDATE role SET name = name || ' (astray)'")
    server.sql(database, "UPDATE user_profile SET full_name = 'astray' WHERE id < 40")
    server.sql(database, "CALL profile_cache.refresh()")
    expect("stale where it goes astray", server.sql(database, UNCACHED), 0)
    expect("wrong where it goes astray", server.sql(database, WRONG), 0)


def test_promotion_and_rewind(primary):
    """A standby is promoted in the middle of a refresh, beside sessions that stay; the old primary is rewound and follows it.

    Rules: E6.
    """
    database = "failover"
    primary.start(full_page_writes="on", wal_keep_size="1GB")
    primary.create(database)
    fill(primary, database)
    primary.run_server_command(primary.bindir / "pg_basebackup", "-D", primary.dir / "standby", "-R", "-X", "stream", "-c", "fast", "--no-sync")
    primary.start("standby", port="5433", full_page_writes="on", wal_keep_size="1GB")
    standby = at(primary, "5433")
    try:
        catch_up(primary, standby)
        with contextlib.ExitStack() as stack:
            before, reader, stays = (stack.enter_context(Session(standby, database)) for _ in range(3))
            for session in (before, reader, stays):
                expect("a session on the standby", session.do(WRONG), 0)
            # A transaction with a snapshot from before all this, one from its middle, and a session between two.
            before.do("BEGIN ISOLATION LEVEL REPEATABLE READ")
            expect("before", before.do(WRONG), 0)
            in_the_middle(primary, database)
            catch_up(primary, standby)
            reader.do("BEGIN ISOLATION LEVEL REPEATABLE READ")
            expect("in the middle", reader.do(WRONG), 0)
            writer = stack.enter_context(Session(primary, database))
            writer.do("BEGIN; UPDATE user_subscription SET plan_id = 'free' WHERE user_id = 3")
            wait_for(primary, database, "the standby streams", "SELECT count(*) = 1 FROM pg_stat_replication")
            primary.run_server_command(primary.bindir / "pg_ctl", "promote", "-w", "-D", primary.dir / "standby")
            writer.do("COMMIT")
            parted = int(standby.sql(database, NEXT))
            go_astray(primary, database)
            for name, session in (("before", before), ("reader", reader), ("stays", stays)):
                expect(f"{name} after the promotion", session.do(WRONG), 0)
            goes_on(standby, database)
            for name, session in (("before", before), ("reader", reader), ("stays", stays)):
                expect(f"{name} after the new primary's refresh", session.do(WRONG), 0)
                expect(f"{name} after the end of its transaction", session.do("COMMIT;" + WRONG).splitlines()[-1], 0)
            expect("the session that stays writes", stays.do("UPDATE user_profile SET full_name = 'Stays' WHERE id = 4;" + WRONG), 0)
        both = [int(one.sql(database, NEXT)) for one in (primary, standby)]
        if min(both) <= parted + 2:
            raise RuntimeError(f"no transaction id was used twice: {parted}, {both}")
        # Before its first checkpoint the new primary's files still say that it is on the old timeline.
        standby.sql("postgres", "CHECKPOINT")
        primary.stop("fast")
        source = f"host={primary.dir} port=5433 user={primary.user} dbname=postgres"
        primary.run_server_command(primary.bindir / "pg_rewind", "-D", primary.dir / "data", "--source-server", source, "--write-recovery-conf", "--no-sync")
        primary.start(full_page_writes="on")
        expect("the old primary follows", primary.sql(database, "SELECT pg_is_in_recovery()"), "t")
        standby.sql(database, "UPDATE role SET name = name || '!'")
        catch_up(standby, primary)
        expect("wrong on the old primary", primary.sql(database, WRONG), 0)
        standby.sql(database, "CALL profile_cache.refresh()")
        catch_up(standby, primary)
        expect("wrong on the old primary, refreshed", primary.sql(database, WRONG), 0)
        expect("stale on the old primary", primary.sql(database, UNCACHED), 0)
        expect("verify on the old primary", primary.sql(database, VERIFY), 0)
        expect("documents", primary.sql(database, DOCUMENTS), standby.sql(database, DOCUMENTS))
        astray = "SELECT count(*) FROM user_profile WHERE cached_profile::text LIKE '%astray%'"
        expect("what went astray", primary.sql(database, astray), 0)
    finally:
        primary.stop("fast", "standby")


def test_point_in_time(primary):
    """A base backup, the archive, and a restore point in the middle of a refresh: documents are those of that moment.

    Rules: E6.
    """
    database = "recovered"
    archive = primary.dir / "archive"
    primary.run_server_command("mkdir", archive)
    primary.start(full_page_writes="on", archive_mode="on", archive_command=f"cp %p {archive}/%f")
    primary.create(database)
    fill(primary, database)
    primary.run_server_command(primary.bindir / "pg_basebackup", "-D", primary.dir / "restored", "-X", "none", "-c", "fast", "--no-sync")
    in_the_middle(primary, database)
    wanted, parted = primary.sql(database, DOCUMENTS), int(primary.sql(database, NEXT))
    primary.sql(database, "SELECT pg_create_restore_point('here')")
    go_astray(primary, database)
    primary.sql("postgres", "SELECT pg_switch_wal()")
    last = int(primary.sql(database, NEXT))
    primary.stop("fast")
    primary.run_server_command("touch", primary.dir / "restored/recovery.signal")
    primary.start(
        "restored", port="5433", restore_command=f"cp {archive}/%f %p", recovery_target_name="here", recovery_target_action="promote",
        archive_mode="off",
    )  # fmt: skip
    restored = at(primary, "5433")
    try:
        wait_for(restored, "postgres", "the end of recovery", "SELECT NOT pg_is_in_recovery()")
        expect("documents of that moment", restored.sql(database, DOCUMENTS), wanted)
        if int(restored.sql(database, NEXT)) > min(parted + 2, last):
            raise RuntimeError("no transaction id is used twice")
        goes_on(restored, database)
    finally:
        primary.stop("fast", "restored")
