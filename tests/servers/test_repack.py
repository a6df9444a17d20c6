"""pg_repack, of Debian's package: it copies a table beside its writers, follows these by a row trigger, and swaps the two. What the
extension writes fires no trigger, so that copies lack it.
"""

import subprocess
import time

import pytest

from lib.cluster import TESTS
from lib.filled import VERIFY, WRONG, Session, expect, fill, wait_for

FRESH = "SELECT stale = 0 AND pending_keys = 0 AND pending_epochs = 0 FROM profile_cache.status"
COPIED = "SELECT count(*) FROM pg_trigger WHERE tgname = 'repack_trigger'"


@pytest.fixture
def repack(server, database):
    subprocess.run([TESTS / "setup.sh", "repack"], check=True)
    fill(server, database, 20000)
    server.sql(database, "CREATE EXTENSION pg_repack")
    command = [server.bindir / "pg_repack", "-d", database, "-t", "user_profile", "--no-kill-backend", "--wait-timeout", "600"]
    return server.server_command(*command)


def test_repack(server, database, repack):
    """While pg_repack copies the profile table, reads use the view, and what is computed at commit is not trusted; when it has
    swapped the tables, all is computed anew.

    Rules: R8, D8.
    """
    with subprocess.Popen(repack, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        copies = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'pg_repack' AND query LIKE 'INSERT INTO repack.table%'"
        deadline = time.monotonic() + 60
        while server.sql(database, copies) != "t" and time.monotonic() < deadline:
            pass
        with Session(server, database) as reader:
            # As long as it reads, the tables are not swapped.
            reader.do("BEGIN; LOCK TABLE user_profile IN ACCESS SHARE MODE")
            waits = "SELECT count(*) > 0 FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE a.application_name = 'pg_repack' AND NOT l.granted"
            wait_for(server, database, "the copy is made", waits)
            changes = "UPDATE user_subscription SET status = CASE status WHEN 'active' THEN 'past_due' ELSE 'active' END WHERE user_id = "
            server.psql(database, "-f", "-", input="".join(f"{changes}{n};" for n in range(1, 301)), capture_output=True)
            expect("copies", server.sql(database, COPIED), 1)
            expect("wrong meanwhile", server.sql(database, WRONG), 0)
            why = "SELECT profile_cache.explain(supabase_user_id) ->> 'reason' FROM user_profile WHERE id = 20000"
            expect("why it is read from the view", server.sql(database, why), "unhealthy")
            said = server.sql(database, "SELECT warnings::text LIKE '%pg_repack copies table public.user_profile%' FROM profile_cache.status")
            expect("status says so", said, "t")
            reader.do("COMMIT")
        output = running.communicate()[0]
        expect(f"pg_repack: {output}", running.returncode, 0)
    expect("wrong after it", server.sql(database, WRONG), 0)
    server.sql(database, "CALL profile_cache.refresh()")
    expect("all fresh", server.sql(database, FRESH), "t")
    expect("wrong at the end", server.sql(database, WRONG), 0)
    expect("verify", server.sql(database, VERIFY), 0)
    expect("warnings", server.sql(database, "SELECT warnings FROM profile_cache.status"), "{}")


def test_repack_of_another_table(server, database, repack):
    """A used table that is no profile table is copied with all that its writers do: nothing becomes pending."""
    command = [part if part != "user_profile" else "user_subscription" for part in repack]
    done = subprocess.run(command, env=server.env, capture_output=True, text=True)
    expect(f"pg_repack: {done.stderr}", done.returncode, 0)
    expect("pending", server.sql(database, "SELECT count(*) FROM profile_cache.pending"), 0)
    expect("wrong", server.sql(database, WRONG), 0)
