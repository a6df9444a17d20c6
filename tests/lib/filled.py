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
# Which kinds of rows are pending, a word for each row.
KINDS = """SELECT string_agg(k, ', ' ORDER BY k) FROM (
  SELECT concat_ws(' ', CASE WHEN epoch IS NULL THEN 'new' ELSE 'numbered' END, CASE WHEN redefined THEN 'redefined' END, CASE WHEN about IS NOT NULL THEN 'unseen' END, CASE WHEN apply THEN 'apply' END, link_table) FROM profile_cache.pending_epoch
  UNION ALL SELECT 'key' FROM profile_cache.pending_key
  UNION ALL SELECT 'unmatched' FROM profile_cache.unmatched_key
  UNION ALL SELECT 'progress' FROM profile_cache.epoch_progress) AS p(k)"""

# Every object of the extension, with all that makes it what it is.
OBJECTS = """
WITH member AS (SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS name FROM pg_depend AS d JOIN pg_extension AS e
  ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid WHERE e.extname = 'profile_cache' AND d.deptype = 'e'),
 relation AS (SELECT c.*, m.name FROM member AS m JOIN pg_class AS c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid)
SELECT m.name, 'comment', obj_description(m.objid, m.classid::regclass::name) FROM member AS m
UNION ALL SELECT m.name, 'function', pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '') FROM member AS m JOIN pg_proc AS p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
UNION ALL SELECT r.name, 'relation', concat_ws(' ', r.relkind, r.relpersistence, r.reloptions, r.relacl, CASE WHEN r.relkind = 'v' THEN pg_get_viewdef(r.oid) END) FROM relation AS r
UNION ALL SELECT r.name, 'column ' || a.attnum, concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attstorage, a.attacl, pg_get_expr(d.adbin, d.adrelid), col_description(r.oid, a.attnum))
  FROM relation AS r JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 LEFT JOIN pg_attrdef AS d ON d.adrelid = r.oid AND d.adnum = a.attnum
UNION ALL SELECT r.name, 'constraint ' || c.conname, pg_get_constraintdef(c.oid) || coalesce(obj_description(c.oid, 'pg_constraint'), '') FROM relation AS r JOIN pg_constraint AS c ON c.conrelid = r.oid
UNION ALL SELECT r.name, 'index', pg_get_indexdef(i.indexrelid) || coalesce(obj_description(i.indexrelid, 'pg_class'), '') FROM relation AS r JOIN pg_index AS i ON i.indrelid = r.oid
UNION ALL SELECT r.name, 'trigger ' || t.tgname, concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger')) FROM relation AS r JOIN pg_trigger AS t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal
UNION ALL SELECT m.name, 'event trigger', concat_ws(' ', t.evtevent, t.evtfoid::regprocedure, t.evtenabled, t.evttags) FROM member AS m JOIN pg_event_trigger AS t ON m.classid = 'pg_event_trigger'::regclass AND t.oid = m.objid
UNION ALL SELECT 'extension', 'dumped', (SELECT string_agg(concat_ws(' ', c.oid::regclass, c.condition), ', ' ORDER BY c.n) FROM pg_extension AS e, unnest(e.extconfig, e.extcondition) WITH ORDINALITY AS c(oid, condition, n) WHERE e.extname = 'profile_cache')
UNION ALL SELECT 'extension', 'version', e.extversion FROM pg_extension AS e WHERE e.extname = 'profile_cache'
ORDER BY 1, 2, 3
"""


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


def restore(server, restored, original, database):
    """The database of the server `original`, dumped by this server's pg_dump and restored here: right at once, and cached
    after one refresh."""
    done = subprocess.run([server.bindir / "pg_dump", "-d", database], env=original.env, text=True, capture_output=True)
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
    expect("the same documents", server.sql(restored, same), original.sql(database, same))


def leave_pending(server, database, prepared=None):
    """Pending rows of every kind: numbered and held up, new, of everybody, of a redefinition, unseen, keys with and without a row.
    `prepared`: by which name the transaction is prepared that holds one up; else it is over in the end."""
    # An enum, whose labels DDL can rename beside whoever holds locks on tables.
    server.sql(database, "CREATE TYPE standing AS ENUM ('new', 'good'); ALTER TABLE user_profile ADD COLUMN standing standing DEFAULT 'new'")
    server.sql(database, "SELECT profile_cache.attach()")
    server.sql(database, "CALL profile_cache.refresh()")
    with Session(server, database) as writer:
        writer.do("BEGIN; UPDATE user_profile SET phone = '1' WHERE id = 1; UPDATE user_subscription SET plan_id = 'team' WHERE user_id = 1")
        if prepared:
            writer.do(f"PREPARE TRANSACTION '{prepared}'")
        server.sql(database, "UPDATE subscription_plan SET display_name = 'Team+' WHERE id = 'team'")
        absent = "SET session_replication_role = replica; INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (9999, 1, now())"
        server.sql(database, absent)
        server.sql(database, "CALL profile_cache.refresh()")
        if not prepared:
            writer.do("COMMIT")
    server.sql(database, "UPDATE role SET permissions = '[1]' WHERE name = 'member'")
    server.sql(database, "SELECT profile_cache.invalidate_all()")
    server.sql(database, "SELECT profile_cache.invalidate(supabase_user_id) FROM user_profile WHERE id IN (2, 3)")
    with Session(server, database) as holder:
        holder.do("BEGIN; LOCK TABLE profile_cache.attachment IN SHARE MODE")
        server.sql(database, "ALTER TYPE standing RENAME VALUE 'new' TO 'fresh'")
        holder.do("COMMIT")
    kinds = server.sql(database, KINDS)
    for kind in ("numbered", "progress", "new role", "key", "unmatched", "unseen"):
        if kind not in kinds:
            raise RuntimeError(f"no pending row that is {kind}: {kinds}")
