"""One test with PostgreSQL's own pg_regress or pg_isolation_regress, in a database of its own: it passes if what
comes out is what tests/KIND/expected has (expected/NAME_1.out and so on are as good)."""

import pathlib
import shutil
import subprocess

from lib.cluster import OUTPUT, ROOT, TESTS
from lib.command import Failed

SOURCES = {"regress": "sql/*.sql", "isolation": "specs/*.spec"}
PROGRAMS = {"regress": "pg_regress", "isolation": "pg_isolation_regress"}


def tests(kind):
    """The names of all tests."""
    return [path.stem for path in sorted((TESTS / kind).glob(SOURCES[kind]))]


def result(kind, test):
    return OUTPUT / kind / "results" / f"{test}.out"


def check(server, kind, test, accept=False, step_timeout=60):
    """Runs one test; Failed with the difference. accept: what comes out becomes the expected output.
    An isolation step that takes longer than step_timeout is cancelled."""
    program = pathlib.Path(server.ask("--pgxs")).parent.parent / "test" / kind / PROGRAMS[kind]
    folder, output = TESTS / kind, OUTPUT / kind
    expected, came_out = folder / "expected" / f"{test}.out", result(kind, test)
    output.mkdir(parents=True, exist_ok=True)
    came_out.unlink(missing_ok=True)

    database = f"{kind}_{test}"
    server.fresh(kind, database)
    # Where the server is and who we are is in the environment.
    command = [program, "--use-existing", f"--inputdir={folder}", f"--outputdir={output}", f"--bindir={server.bindir}", f"--dbname={database}", test]
    # PostgreSQL 15 reads one, newer ones twice the other.
    env = server.env | {"PGISOLATIONTIMEOUT": str(step_timeout), "PG_TEST_TIMEOUT_DEFAULT": str(max(1, step_timeout // 2))}
    done = subprocess.run([str(c) for c in command], cwd=folder, env=env, text=True, capture_output=True, timeout=600)
    if accept and came_out.exists():
        expected.parent.mkdir(exist_ok=True)
        shutil.copyfile(came_out, expected)
        return
    if done.returncode == 0:
        server.drop(database)
        return
    if not came_out.exists():
        raise Failed(done.stdout + done.stderr)
    if not expected.exists():
        raise Failed(f"there is no {expected.relative_to(ROOT)}; read {came_out.relative_to(ROOT)}, then --accept it")
    diff = subprocess.run(["diff", "-U3", str(expected), str(came_out)], text=True, capture_output=True)
    raise Failed("\n".join(diff.stdout.splitlines()[:80]) or done.stdout + done.stderr)
