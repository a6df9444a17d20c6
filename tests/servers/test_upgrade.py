"""ALTER EXTENSION … UPDATE from each released version: afterwards the objects are those of a fresh installation to the byte,
nothing is lost and nothing stale. What was released is built again from this repository's history.
"""

import collections
import shutil
import subprocess
import tomllib

import pytest

from lib.cluster import ROOT, TESTS, VERSION
from lib.command import cargo
from lib.filled import KINDS, OBJECTS, PENDING, UNCACHED, VERIFY, WRONG, Session, expect, fill, leave_pending, wait_for

RELEASED = tomllib.loads((TESTS / "released.toml").read_text())


def library_of(server, version):
    """A folder that the server may read, with the library of a released version. None in a clone without its commit."""
    if subprocess.run(["git", "cat-file", "-e", RELEASED[version]["commit"]], cwd=ROOT, capture_output=True).returncode:
        return None
    # By commit: what is there of another one is not it. Marked last.
    source = ROOT / "target/released" / RELEASED[version]["commit"]
    if not (source / "unpacked").exists():
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        packed = source / "source.tar"
        subprocess.run(["git", "archive", "-o", packed, RELEASED[version]["commit"]], cwd=ROOT, check=True)
        subprocess.run(["tar", "-xf", packed], cwd=source, check=True)
        (source / "unpacked").touch()
    # In a folder of its own: cargo would take the one version's library for the other's, which has the same name.
    target = ROOT / "target/released/build"
    cargo(server.major, "build", "--locked", "--target-dir", str(target), cwd=source, log=f"released-{version}.log")
    folder = server.dir / f"released-{version}"
    folder.mkdir(exist_ok=True)
    shutil.copy(target / "debug/libprofile_cache.so", folder / "profile_cache.so")
    folder.chmod(0o755)
    return folder


@pytest.mark.parametrize("version", [version for version in RELEASED if version != VERSION])
def test_update(server, database, version, say):
    """The update beside a session that goes on with the old library, with pending rows of every kind."""
    library = library_of(server, version)
    if not library:
        say(f"a shallow clone: {version}'s SQL objects with the library of {VERSION}")
    server.env["PGOPTIONS"] = f"-c dynamic_library_path={library}:$libdir" if library else ""
    try:
        fill(server, database, version=version)
        loaded = Session(server, database)
        leave_pending(server, database, prepared="upgrade")
    finally:
        del server.env["PGOPTIONS"]
    with loaded:
        expect("the old library, before", loaded.do("SELECT count(get_profile(supabase_user_id)) > 0 FROM user_profile"), "t")
        warned = "SELECT w FROM profile_cache.status AS s, unnest(s.warnings) AS w WHERE w LIKE '%version%'"
        if library:  # it is the old one: nothing is of another version than it
            expect("the old library's status", loaded.do(warned), "")
        # The package has come, the update not yet.
        expect("wrong before the update", server.sql(database, WRONG), 0)
        expect("status", server.sql(database, warned), f"the SQL objects are of version {version} and this session's library of {VERSION}: ALTER EXTENSION profile_cache UPDATE, or reconnect")
        server.sql(database, "UPDATE user_profile SET phone = '2' WHERE id = 5")
        loaded.do("BEGIN; UPDATE user_subscription SET plan_id = 'pro' WHERE user_id = 6")
        # It adds to tables that each transaction which has read or written a profile has locked: as docs/operations.md says.
        done = server.psql(database, "-c", "SET lock_timeout = '200ms'", "-c", "ALTER EXTENSION profile_cache UPDATE", capture_output=True)
        if "lock timeout" not in done.stderr:
            raise RuntimeError(f"beside an open transaction: {done.stderr!r}")
        loaded.do("COMMIT")
        server.sql(database, "COMMIT PREPARED 'upgrade'")
        expect("wrong before the update", server.sql(database, WRONG), 0)
        before = collections.Counter(server.sql(database, KINDS).split(", "))
        server.sql(database, "ALTER EXTENSION profile_cache UPDATE")
        # The update itself is DDL on what the view calls.
        after = collections.Counter(server.sql(database, KINDS).split(", "))
        expect("pending before, and no longer", before - after, collections.Counter())
        expect("wrong after the update", server.sql(database, WRONG), 0)
        expect("the old library's write", loaded.do("UPDATE user_profile SET phone = '3' WHERE id = 7"), "")
        expect("wrong after the old library's writes", server.sql(database, WRONG), 0)
        expect("wrong to the old library", loaded.do(WRONG), 0)
    fresh = f"{database}_fresh"
    server.create(fresh)
    server.sql(fresh, "CREATE EXTENSION profile_cache")
    differ = set(server.sql(database, OBJECTS).splitlines()) ^ set(server.sql(fresh, OBJECTS).splitlines())
    expect("objects, updated and fresh", sorted(differ), [])
    expect("warnings", server.sql(database, warned), "")
    server.sql(database, "CALL profile_cache.refresh()")
    expect("pending at the end", server.sql(database, PENDING), 0)
    expect("stale at the end", server.sql(database, UNCACHED), 0)
    expect("wrong at the end", server.sql(database, WRONG), 0)
    expect("verify", server.sql(database, VERIFY), 0)
    if library:
        pass_to_the_other(server, database, library)


@pytest.mark.parametrize("version", [version for version in RELEASED if version != VERSION])
def test_beside_refresh(server, database, version):
    """The update beside a step of refresh waits for it, and has nothing in hand that the step wants next."""
    fill(server, database, version=version)
    with Session(server, database) as refresh:
        refresh.do("BEGIN; LOCK TABLE profile_cache.epoch_progress IN SHARE UPDATE EXCLUSIVE MODE")
        with Session(server, database) as update:
            update.begin("ALTER EXTENSION profile_cache UPDATE")
            waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'ALTER EXTENSION%' AND wait_event_type = 'Lock'"
            wait_for(server, database, "the update waits", waits, "1")
            locked = """SELECT string_agg(c.relname, ' ') FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation JOIN pg_stat_activity AS a USING (pid)
                WHERE a.query LIKE 'ALTER EXTENSION%' AND c.relnamespace = 'profile_cache'::regnamespace AND l.granted AND l.mode LIKE '%Exclusive%'"""
            expect("what the update has locked", server.sql(database, locked), "")
            refresh.do("COMMIT")
            update.end()
        expect("wrong after the update", server.sql(database, WRONG), 0)


@pytest.mark.parametrize("version", [version for version in RELEASED if version != VERSION])
def test_default_privileges(server, database, version):
    """What default privileges give on an update's new objects is taken back: who may write a table of ours, or put a trigger on
    it, would have his code run as the extension's owner."""
    role = f"{database}_web".replace(".", "")
    server.sql(database, f'CREATE ROLE "{role}"; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO "{role}"')
    try:
        fill(server, database, version=version)
        server.sql(database, "ALTER EXTENSION profile_cache UPDATE")
        given = f"""SELECT DISTINCT c.relname FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS x JOIN pg_roles AS r ON r.oid = x.grantee
            WHERE c.relnamespace = 'profile_cache'::regnamespace AND r.rolname = '{role}' AND x.privilege_type <> 'SELECT'"""
        expect("what the role may write", server.sql(database, given), "")
        # Whoever grants it afterwards has it taken back by the next refresh.
        server.sql(database, f'GRANT INSERT, TRIGGER ON profile_cache.pending_epoch TO "{role}"; CALL profile_cache.refresh()')
        expect("what the role may write", server.sql(database, given), "")
    finally:
        server.sql(database, f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


@pytest.mark.parametrize("version", [version for version in RELEASED if version != VERSION])
def test_not_updated(server, database, version):
    """This library with the SQL objects of before: it has no claims there, and refreshes in one session."""
    fill(server, database, version=version)
    for change in ("SELECT profile_cache.invalidate_all()", "UPDATE subscription_plan SET display_name = display_name || '!'"):
        server.sql(database, change)
        with Session(server, database) as first:
            first.do("SELECT FROM profile_cache.refresh_step(50, 'begin', NULL)")
            said = server.psql(database, "-c", "CALL profile_cache.refresh()", capture_output=True).stderr
            if "another refresh is under way" not in said:
                raise RuntimeError(f"another call says {said!r}")
            expect("wrong meanwhile", server.sql(database, WRONG), 0)
            first.do("CALL profile_cache.refresh(50)")
        expect("pending at the end", server.sql(database, PENDING), 0)
        expect("stale at the end", server.sql(database, UNCACHED), 0)
        expect("wrong at the end", server.sql(database, WRONG), 0)


def pass_to_the_other(server, database, library):
    """A pass that one library has begun, and that the other one ends: the old one knows nothing of claims."""
    step = "SELECT FROM profile_cache.refresh_step(50, 'epochs', NULL)"
    with Session(server, database) as new, Session(server, database, PGOPTIONS=f"-c dynamic_library_path={library}:$libdir") as old:
        for begins, ends in ((new, old), (old, new), (new, new)):
            server.sql(database, "UPDATE subscription_plan SET display_name = display_name || '!'")
            for _ in range(5):  # assigned, holders noted, pass begun, and on
                begins.do(step)
            expect("what the other says", ends.do("SET client_min_messages = warning; CALL profile_cache.refresh()"), "")
            expect("pending when the other has ended it", server.sql(database, PENDING), 0)
            expect("stale then", server.sql(database, UNCACHED), 0)
            expect("wrong then", server.sql(database, WRONG), 0)
    expect("claims at the end", server.sql(database, "SELECT count(*) FROM profile_cache.claim"), 0)
