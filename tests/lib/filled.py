"""What tests of whole servers share: a filled database, what must be so of it at any time, sessions that stay open."""

import subprocess
import time

from lib.cluster import TESTS

DEMO = TESTS / "demo"
# Rows where get_profile and the view differ, or a trusted copy and the view do.
WRONG = """SELECT (SELECT count(*) FROM user_profile AS p LEFT JOIN profile_document AS d USING (supabase_user_id)
  WHERE get_profile(p.supabase_user_id)::text IS DISTINCT FROM d.document::text)"""
VERIFY = "SELECT count(*) FROM profile_cache.verify()"
UNCACHED = "SELECT stale FROM profile_cache.status"
PENDING = "SELECT count(*) FROM profile_cache.pending"


def expect(what, got, wanted):
    if str(got) != str(wanted):
        raise RuntimeError(f"{what}: {got!r}, expected {wanted!r}")


def fill(server, database, users=300, version=None):
    """The demo's tables with some users, attached and cached, by the newest or another version of the extension."""
    for file in ("tables.sql", "data.sql"):
        done = server.psql(database, "-v", f"users={users}", "-f", DEMO / file, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
    chosen = f" VERSION '{version}'" if version else ""
    server.sql(database, f"CREATE EXTENSION profile_cache{chosen}; SELECT profile_cache.attach();")
    server.sql(database, "CALL profile_cache.refresh()")
    expect("stale after the first refresh", server.sql(database, UNCACHED), 0)


def survive(server, database):
    """A crash loses nothing that is committed: from here on a test knows what it goes on from."""
    server.sql(database, f'ALTER DATABASE "{database}" SET synchronous_commit = on')


class Session:
    """A session that stays open: psql on a pipe. do() waits for the end of what it sends, begin() does not."""

    def __init__(self, server, database, **env):
        command = [server.bindir / "psql", "-XAtq", "-d", database]
        self.psql = subprocess.Popen(
            [str(c) for c in command], env=server.env | env, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def begin(self, sql):
        self.psql.stdin.write(sql.rstrip(";") + ";\n\\echo -- done\n")
        self.psql.stdin.flush()

    def end(self):
        lines = []
        # An empty line has its end; without one it is psql that has ended.
        while (line := self.psql.stdout.readline()) not in ("", "-- done\n"):
            lines.append(line.rstrip("\n"))
        return "\n".join(lines)

    def do(self, sql):
        self.begin(sql)
        return self.end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.psql.stdin.close()
        except BrokenPipeError:
            pass
        self.psql.wait(60)
        self.psql.stdout.close()


def wait_for(server, database, what, sql, wanted="t"):
    for _ in range(300):
        if server.sql(database, sql) == wanted:
            return
        time.sleep(0.1)
    raise RuntimeError(f"{what}: not in 30 s")
