"""ALTER EXTENSION … UPDATE from each released version: afterwards the objects are those of a fresh installation to the byte,
nothing is lost and nothing stale. What was released is built again from this repository's history.
"""

import collections
import shutil
import subprocess
import tomllib

import pytest

from lib.cluster import ROOT, TESTS
from lib.command import cargo
from lib.filled import PENDING, UNCACHED, VERIFY, WRONG, Session, expect, fill

RELEASED = tomllib.loads((TESTS / "released.toml").read_text())
COMING = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]

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


def library_of(server, version):
    """A folder that the server may read, with the library of a released version. None in a clone without its commit."""
    if subprocess.run(["git", "cat-file", "-e", RELEASED[version]["commit"]], cwd=ROOT, capture_output=True).returncode:
        return None
    source = ROOT / "target/released" / version
    if not (source / "Cargo.toml").exists():
        source.mkdir(parents=True, exist_ok=True)
        packed = source / "source.tar"
        subprocess.run(["git", "archive", "-o", packed, RELEASED[version]["commit"]], cwd=ROOT, check=True)
        subprocess.run(["tar", "-xf", packed], cwd=source, check=True)
    # By the profile of the tests, which it may not have, so that what it depends on has been compiled.
    profile = tomllib.loads((ROOT / "Cargo.toml").read_text())["profile"]["tested"]
    options = [f"--config=profile.tested.{k}={str(v).lower() if isinstance(v, bool) else repr(v)}" for k, v in profile.items()]
    target = ROOT / "target"
    cargo(server.major, "build", "--locked", "--profile", "tested", "--target-dir", str(target), *options, cwd=source, log=f"released-{version}.log")
    folder = server.dir / f"released-{version}"
    folder.mkdir(exist_ok=True)
    shutil.copy(target / "tested/libprofile_cache.so", folder / "profile_cache.so")
    folder.chmod(0o755)
    return folder


@pytest.mark.parametrize("version", [version for version in RELEASED if version != COMING])
def test_update(server, database, version, say):
    """The update beside a session that goes on with the old library, with pending rows of every kind."""
    library = library_of(server, version)
    if not library:
        say(f"a shallow clone: {version}'s SQL objects with the library of {COMING}")
    server.env["PGOPTIONS"] = f"-c dynamic_library_path={library}:$libdir" if library else ""
    try:
        fill(server, database, version=version)
        loaded = Session(server, database)
        leave_pending(server, database)
    finally:
        del server.env["PGOPTIONS"]
    with loaded:
        expect("the old library, before", loaded.do("SELECT count(get_profile(supabase_user_id)) > 0 FROM user_profile"), "t")
        # The package has come, the update not yet.
        expect("wrong before the update", server.sql(database, WRONG), 0)
        said = server.sql(database, "SELECT w FROM profile_cache.status AS s, unnest(s.warnings) AS w WHERE w LIKE '%ALTER EXTENSION%'")
        expect("status", said, f"the SQL objects are of version {version} and this session's library of {COMING}: ALTER EXTENSION profile_cache UPDATE, or reconnect")
        server.sql(database, "UPDATE user_profile SET phone = '2' WHERE id = 5")
        loaded.do("BEGIN; UPDATE user_subscription SET plan_id = 'pro' WHERE user_id = 6")
        before = collections.Counter(server.sql(database, KINDS).split(", "))
        server.sql(database, "ALTER EXTENSION profile_cache UPDATE")
        # The update itself is DDL on what the view calls.
        after = collections.Counter(server.sql(database, KINDS).split(", "))
        expect("pending before, and no longer", before - after, collections.Counter())
        expect("wrong after the update", server.sql(database, WRONG), 0)
        loaded.do("COMMIT")
        expect("the old library's write", loaded.do("UPDATE user_profile SET phone = '3' WHERE id = 7"), "")
        expect("wrong after the old library's writes", server.sql(database, WRONG), 0)
        expect("wrong to the old library", loaded.do(WRONG), 0)
    fresh = f"{database}_fresh"
    server.create(fresh)
    server.sql(fresh, "CREATE EXTENSION profile_cache")
    differ = set(server.sql(database, OBJECTS).splitlines()) ^ set(server.sql(fresh, OBJECTS).splitlines())
    expect("objects, updated and fresh", sorted(differ), [])
    expect("warnings", server.sql(database, "SELECT w FROM profile_cache.status AS s, unnest(s.warnings) AS w WHERE w LIKE '%version%'"), "")
    server.sql(database, "COMMIT PREPARED 'upgrade'")
    server.sql(database, "CALL profile_cache.refresh()")
    expect("pending at the end", server.sql(database, PENDING), 0)
    expect("stale at the end", server.sql(database, UNCACHED), 0)
    expect("wrong at the end", server.sql(database, WRONG), 0)
    expect("verify", server.sql(database, VERIFY), 0)


KINDS = """SELECT string_agg(k, ', ' ORDER BY k) FROM (
  SELECT concat_ws(' ', CASE WHEN epoch IS NULL THEN 'new' ELSE 'numbered' END, CASE WHEN redefined THEN 'redefined' END, CASE WHEN about IS NOT NULL THEN 'unseen' END, CASE WHEN apply THEN 'apply' END, link_table) FROM profile_cache.pending_epoch
  UNION ALL SELECT 'key' FROM profile_cache.pending_key
  UNION ALL SELECT 'unmatched' FROM profile_cache.unmatched_key
  UNION ALL SELECT 'progress' FROM profile_cache.epoch_progress) AS p(k)"""


def leave_pending(server, database):
    """Pending rows of every kind: numbered and held up, new, of everybody, of a redefinition, unseen, keys with and without a row."""
    # An enum, whose labels DDL can rename beside whoever holds locks on tables.
    server.sql(database, "CREATE TYPE standing AS ENUM ('new', 'good'); ALTER TABLE user_profile ADD COLUMN standing standing DEFAULT 'new'")
    server.sql(database, "SELECT profile_cache.attach()")
    server.sql(database, "CALL profile_cache.refresh()")
    server.sql(database, "BEGIN; UPDATE user_subscription SET plan_id = 'team' WHERE user_id = 1; PREPARE TRANSACTION 'upgrade';")
    server.sql(database, "UPDATE subscription_plan SET display_name = 'Team+' WHERE id = 'team'")
    absent = "SET session_replication_role = replica; INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (9999, 1, now())"
    server.sql(database, absent)
    server.sql(database, "CALL profile_cache.refresh()")
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
