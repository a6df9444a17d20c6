#!/usr/bin/env python3
"""Everything `make test` runs, part by part, on a private PostgreSQL (cluster.py).

    tests/run.py                                   all of it, as CI does
    tests/run.py --only regress,isolation          some parts
    tests/run.py --only regress attach refresh     some tests of a part
    tests/run.py --only random --seed 7 --seconds 600
    tests/run.py --only catalogue --seconds 60 31_manager
    tests/run.py --only app test_isolation
    tests/run.py --only regress --accept attach    takes what came out as expected

A test has a database of its own, empty but for what tests/PART/setup.sql puts there,
where there is such a file. Each part ends with a line `NAME: N passed, N failed`; the
exit status is 0 only if nothing failed. Results, diffs and logs are left in tests/output.
"""

import sys

# Our own folder comes last in the path: tests/random.py is a test, not the library.
sys.path.append(sys.path.pop(0))

import argparse
import pathlib
import re
import secrets
import shutil
import subprocess
import time

import server_tests
from cluster import CONFIG, OUTPUT, ROOT, Cluster, clean_environment
from pgbouncer import pgbouncer
from redis_server import Redis

TESTS = ROOT / "tests"


class Failed(Exception):
    """One test failed; the text says why."""


class Part:
    """Counts what passed and failed in one part, and prints it as it happens."""

    def __init__(self, name):
        self.name, self.passed, self.failed = name, 0, 0

    def check(self, test, function, *args):
        start = time.monotonic()
        try:
            function(*args)
        except (Failed, RuntimeError, subprocess.TimeoutExpired) as failure:
            self.failed += 1
            print(f"  FAILED  {test}\n{indent(str(failure))}")
        else:
            self.passed += 1
            print(f"  ok      {test} ({time.monotonic() - start:.1f} s)")
        sys.stdout.flush()


def indent(text):
    return "\n".join("          " + line for line in text.splitlines())


def run(command, log=None, **options):
    """Runs a command; Failed, with the end of what it said, if that fails."""
    done = subprocess.run(
        [str(c) for c in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        **{"cwd": ROOT, "env": clean_environment()} | options,
    )  # fmt: skip
    if log:
        (OUTPUT / log).write_text(done.stdout)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-60:])
        raise Failed(f"{' '.join(str(c) for c in command)}: exit status {done.returncode}\n{tail}")
    return done.stdout


def sources(folder, pattern, names):
    """The tests of a folder, or those of them that were asked for."""
    return [path for path in sorted((TESTS / folder).glob(pattern)) if not names or path.stem in names]


def fresh_database(server, part, database):
    """A database of its own, empty but for tests/PART/setup.sql, where that exists."""
    server.create(database)
    setup = TESTS / part / "setup.sql"
    if setup.exists():
        server.sql(database, setup.read_text())


# The parts


def lint(part, options):
    features = ["--no-default-features", "--features", f"pg{options.pg}"]
    part.check("cargo fmt --check", run, ["cargo", "fmt", "--check"])
    part.check("cargo clippy -D warnings", run, ["cargo", "clippy", "--all-targets", *features, "--", "-D", "warnings"])
    subprocess.run([TESTS / "setup.sh", "venv"], check=True)
    # refresh() commits, so it can have no SET clause: every name in it is qualified instead. pgspot sees to names,
    # operators and casts; it does not look at declared types, which a type in pg_temp could stand for.
    for script in sorted((ROOT / "sql").glob("*.sql")):
        spot = [TESTS / ".venv/bin/pgspot", "--proc-without-search-path", "profile_cache.refresh(batch_size integer)", script]
        part.check(f"pgspot {script.name}", run, spot)
        part.check(f"declared types of {script.name}", run, [TESTS / ".venv/bin/python", "-P", TESTS / "declared_types.py", script])


def unit(part, options):
    # Plain `cargo test`, not `cargo pgrx test`: the pure modules need no server, and on
    # Linux the test binary links although PostgreSQL's symbols are missing, as long as no
    # test calls into the server. It costs one debug build, no second installation, and no sudo.
    command = ["cargo", "test", "--lib", "--no-default-features", "--features", f"pg{options.pg}", "--", *options.names]
    try:
        output = run(command, log="unit.log")
    except Failed as failure:
        output = str(failure)
        if "test result:" not in output:  # it did not even compile
            part.check("cargo test --lib", fail, output)
            return
    part.passed, part.failed = (sum(map(int, found)) for found in zip(*re.findall(r"(\d+) passed; (\d+) failed", output)))
    if part.failed:
        print(indent(output))


def fail(message):
    raise Failed(message)


def regress(part, options, server):
    """SQL files, with PostgreSQL's own pg_regress, each in a database of its own."""
    for path in sources("regress/sql", "*.sql", options.names):
        part.check(path.stem, pg_regress, server, "regress", path.stem, options.accept)


def isolation(part, options, server):
    """Interleavings of sessions, with PostgreSQL's own isolation tester."""
    for path in sources("isolation/specs", "*.spec", options.names):
        part.check(path.stem, pg_regress, server, "isolation", path.stem, options.accept)


def pg_regress(server, kind, test, accept):
    """One test, in a database of its own."""
    program = {"regress": "pg_regress", "isolation": "pg_isolation_regress"}[kind]
    program = pathlib.Path(server.ask("--pgxs")).parent.parent / "test" / kind / program
    folder, output = TESTS / kind, OUTPUT / kind
    expected, result = folder / "expected" / f"{test}.out", output / "results" / f"{test}.out"
    output.mkdir(parents=True, exist_ok=True)
    result.unlink(missing_ok=True)

    database = f"{kind}_{test}"
    fresh_database(server, kind, database)
    command = [
        program, "--use-existing", f"--inputdir={folder}", f"--outputdir={output}", f"--bindir={server.bindir}",
        f"--host={server.dir}", f"--port={server.port}", f"--user={server.user}", f"--dbname={database}", test,
    ]  # fmt: skip
    # An isolation step that hangs is cancelled after a minute (PostgreSQL 15 reads one, newer ones twice the other).
    env = server.env | {"PGISOLATIONTIMEOUT": "60", "PG_TEST_TIMEOUT_DEFAULT": "30"}
    done = subprocess.run([str(c) for c in command], cwd=folder, env=env, text=True, capture_output=True, timeout=600)
    if accept and result.exists():
        expected.parent.mkdir(exist_ok=True)
        shutil.copyfile(result, expected)
        return
    if done.returncode == 0:
        server.sql("postgres", f'DROP DATABASE "{database}" WITH (FORCE)')
        return
    if not result.exists():
        raise Failed(done.stdout + done.stderr)
    if not expected.exists():
        raise Failed(f"there is no {expected.relative_to(ROOT)}; read {result.relative_to(ROOT)}, then --accept it")
    diff = subprocess.run(["diff", "-U3", str(expected), str(result)], text=True, capture_output=True)
    raise Failed("\n".join(diff.stdout.splitlines()[:80]) or done.stdout + done.stderr)


def random(part, options, server):
    """Concurrent transactions at random, from a seed, checked against the view."""
    script = TESTS / "random.py"
    if not script.exists():
        print("  tests/random.py is not there")
        return
    seconds = options.seconds or "60"
    subprocess.run([TESTS / "setup.sh", "venv"], check=True)
    fresh_database(server, "random", "random")
    command = [
        TESTS / ".venv/bin/python", "-P", script, "--socket", server.dir, "--port", server.port, "--dbname", "random",
        "--seed", options.seed, "--seconds", seconds,
    ]  # fmt: skip

    def go():
        print(indent(run(command, log="random.log", env=server.env, timeout=int(seconds) + 300)))

    part.check(f"seed {options.seed}, {seconds} s", go)


def catalogue(part, options, server):
    """Every accepted view of the catalogue under random writes, in a database of its own with the same tables."""
    subprocess.run([TESTS / "setup.sh", "venv"], check=True)
    folder, seconds = TESTS / "catalogue", options.seconds or "0.5"
    server.create("catalogue")
    server.sql("catalogue", "CREATE EXTENSION profile_cache;" + (folder / "schema.sql").read_text() + (folder / "rows.sql").read_text())
    for view in sources("catalogue/accepted", "*.sql", options.names):
        database = f"catalogue_{view.stem}"
        command = [
            TESTS / ".venv/bin/python", "-P", TESTS / "catalogue.py", "--socket", server.dir, "--port", server.port, "--dbname", database,
            "--view", view, "--seed", options.seed, "--seconds", seconds,
        ]  # fmt: skip

        def go():
            server.create(database, template="catalogue")
            print(indent(run(command, log=f"{database}.log", env=server.env, timeout=20 * float(seconds) + 120)))
            server.sql("postgres", f'DROP DATABASE "{database}" WITH (FORCE)')

        part.check(view.stem, go)


def servers(part, options, server):
    """What takes more than sessions on one running server: a crash, a standby, dump and restore."""
    for test in server_tests.TESTS:
        if not options.names or test.__name__ in options.names:
            fresh_database(server, "servers", test.__name__)
            part.check(test.__name__, test, server, test.__name__)


def app(part, options, server):
    """The Django app of tests/app: its commands, then its tests by Django's own runner, as a role that is no superuser."""
    labels = [f"accounts.tests.{path.stem}" for path in sources("app/accounts/tests", "test_*.py", options.names)]
    if not labels:
        return
    subprocess.run([TESTS / "setup.sh", "app"], check=True)
    folder = TESTS / "app"
    manage = [folder / ".venv/bin/python", "manage.py"]
    # The owner's name needs quotes, and what it is without them is another's.
    server.sql("postgres", 'CREATE ROLE authenticated; CREATE ROLE anon; CREATE ROLE app; CREATE ROLE "App" LOGIN CREATEDB IN ROLE authenticated, anon')
    # As on Supabase, where whatever is new is open to both; template1, for the database that Django makes for its tests.
    for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
        server.sql("template1", f'ALTER DEFAULT PRIVILEGES FOR ROLE "App" IN SCHEMA public GRANT ALL ON {kind} TO authenticated, anon')
    server.sql("postgres", 'CREATE DATABASE app OWNER "App"')
    # Fewer connections than users who ask at once, so that they take turns on one.
    with Redis(server.dir) as redis, pgbouncer(server, size=2, user="App") as pooled:
        env = server.env | {
            "PGUSER": "App", "PGDATABASE": "app", "REDIS_URL": redis.url, "PYTHONDONTWRITEBYTECODE": "1",
            "POOLED_PORT": pooled["PGPORT"], "HYPOTHESIS_STORAGE_DIRECTORY": str(OUTPUT / "hypothesis"), "SCREENSHOTS": str(OUTPUT),
            "DJANGO_SECRET_KEY": secrets.token_hex(32), "SUPABASE_JWT_SECRET": secrets.token_hex(32),
        }  # fmt: skip
        for command in ("makemigrations --check", "migrate", "refresh_profiles", "migrate accounts zero"):
            part.check(f"manage.py {command}", lambda: run([*manage, *command.split()], cwd=folder, env=env))
        try:
            output, well = run([*manage, "test", "--noinput", *labels], log="app.log", cwd=folder, env=env), True
        except Failed as failure:
            output, well = str(failure), False
    ran = re.search(r"^Ran (\d+) tests? in ([\d.]+)s$", output, re.MULTILINE)
    failed = sum(map(int, re.findall(r"(?:failures|errors)=(\d+)", output[ran.end() :]))) if ran else 0
    if not well and not failed:  # it did not even begin, or did not end
        part.check("manage.py test", fail, output)
        return
    part.passed, part.failed = part.passed + max(0, int(ran[1]) - failed), part.failed + failed
    print(indent(output) if failed else f"  ok      manage.py test: {ran[1]} tests ({ran[2]} s)")


def readme(part, options, server):
    """README.md and the pages under docs/ as a reader would follow them: their SQL, in order, and their commands.

    ```sql blocks run in psql. One that cannot be run has `<!-- no-test: reason -->` above it.
    A ```text block with `<!-- output -->` above it is what the block before it must print.
    ```sh and ```bash blocks hold `make` targets, `psql` commands (run), `git clone` and `cd`; ```crontab such a psql, for a database app.
    README.md begins with the app's tables; each other page in a copy of the database that README.md leaves behind.
    """
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    fresh_database(server, "readme", "readme")
    for page in pages:
        if page.stem != "README":
            server.create(f"readme_{page.stem}", template="readme")
        readme_page(part, server, page, "readme" if page.stem == "README" else f"readme_{page.stem}")
    for page in [*pages, *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY"))]:
        part.check(f"{page.relative_to(ROOT)}: where its links lead", links, page)
    part.check("README.md links to every page", linked, pages[0], pages[1:])
    part.check("what whoever is on call is told", on_call_table, (ROOT / "docs" / "operations.md").read_text())


def readme_page(part, server, path, database):
    """The blocks of one page, in its database."""
    printed = None
    text, name = path.read_text(), path.relative_to(ROOT)
    blocks = list(re.finditer(r"^(?:<!-- *(?P<note>[^\n]*?) *-->\n+)?```(?P<language>\w+)\n(?P<body>.*?)^```$", text, re.MULTILINE | re.DOTALL))
    if len(re.findall(r"^[ >]*```", text, re.MULTILINE)) != 2 * len(blocks):
        part.check(f"{name}", fail, "a block is indented, or has no language: nobody would run it")
    for block in blocks:
        note, language, body = block["note"] or "", block["language"], block["body"]
        where = f"{name} line {text.count(chr(10), 0, block.start('body'))}: {body.strip().splitlines()[0] if body.strip() else ''}"
        if note.startswith("no-test"):
            if not re.match(r"no-test: *\S", note):
                part.check(where, fail, "say why: <!-- no-test: reason -->")
        elif language == "sql":

            def execute():
                nonlocal printed
                done = server.psql(database, "-f", "-", input=body, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                printed = done.stdout
                if done.returncode:
                    raise Failed(done.stdout)

            part.check(where, execute)
        elif language in ("sh", "bash", "crontab"):
            if language == "crontab":
                body = re.sub(r"^(\S+ +){5}", "", body, flags=re.MULTILINE).replace(" -d app ", f" -d {database} ")

            def execute():
                nonlocal printed
                printed = "".join(readme_command(server, line, database) for line in body.replace("\\\n", " ").splitlines())

            part.check(where, execute)
        elif language == "text" and note == "output":

            def compare():
                got, wanted = ([line.rstrip() for line in (s or "").strip().splitlines()] for s in (printed, body))
                if got != wanted:
                    raise Failed("\n".join([f"{name} says:", *wanted, "it is:", *got]))

            part.check(where, compare)


def without_blocks(path):
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page):
    """Every relative link of a page leads to a file that is there, and to a heading that it has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists():
            raise Failed(f"{target}: no such file")
        if anchor and anchor not in anchors(path):
            raise Failed(f"{target}: no such heading")


def anchors(path):
    """What GitHub makes of a page's headings."""
    found = {}
    for heading in re.findall(r"^#+ +(.*?) *$", without_blocks(path), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
        if found[name]:
            found[f"{name}-{found[name]}"] = 0
    return found


def linked(index, pages):
    text = without_blocks(index)
    for page in pages:
        if f"]({page.relative_to(index.parent)})" not in text:
            raise Failed(f"not {page.relative_to(ROOT)}")


def on_call_table(text):
    """Each state in the table for whoever is on call is one that regress/on_call has been in."""
    section = text.partition("\n## On call\n")[2].partition("\n#")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][2:]
    seen = (TESTS / "regress" / "expected" / "on_call.out").read_text()
    for row in rows:
        said = [part.strip(" ;") for quoted in re.findall("`([^`]*)`", row[1]) for part in quoted.split("…")]
        if not any(said):
            raise Failed(f"no words of status: {row}")
        for words in filter(None, said):
            if words not in seen:
                raise Failed(f"not in regress/on_call: {words}")
    if len(rows) < 20:
        raise Failed(f"{len(rows)} rows")


def readme_command(server, line, database):
    """Runs one line of a shell block, or makes sure that it could run; returns what it printed."""
    command = line.split("#")[0].strip().removeprefix("$ ")
    word = command.split(" ")[0]
    if word == "make":
        # `make test` is this run, and began with `make install`; others must exist, and the demo is run small.
        run(["make", "-n", *command.replace("…", "").split()[1:]])
        if command == "make demo":
            run(["make", "demo"], log="demo.log", env=clean_environment() | {"DEMO_USERS": "2000"})
    elif word == "psql":
        return run(["bash", "-euo", "pipefail", "-c", command], env=server.env | {"PGDATABASE": database})
    elif command and not re.match(r"(git clone|cd) ", command):
        raise Failed(f"cannot test `{command}`: put <!-- no-test: reason --> above the block")
    return ""


PARTS = {f.__name__: f for f in (lint, unit, regress, isolation, random, catalogue, servers, app, readme)}
WITHOUT_SERVER = {"lint", "unit"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these tests of the parts")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma: " + ", ".join(PARTS))
    parser.add_argument("--pg", default="15", choices=CONFIG["pg"], help="PostgreSQL's major version")
    parser.add_argument("--accept", action="store_true", help="regress, isolation: results become the expected output")
    parser.add_argument("--seed", default="1", help="random, catalogue: where it starts")
    parser.add_argument("--seconds", help="random: how long it runs (60); catalogue: how long each view does (0.5)")
    parser.add_argument("--library", help="a folder with another profile_cache.so to test; nothing is installed then")
    options = parser.parse_args()
    wanted = options.only.split(",")
    for name in wanted:
        if name not in PARTS:
            parser.error(f"no such part: {name}")
    tests = {path.stem for path in [*TESTS.glob("regress/sql/*.sql"), *TESTS.glob("isolation/specs/*.spec"), *TESTS.glob("catalogue/accepted/*.sql")]}
    tests |= {test.__name__ for test in server_tests.TESTS} | {path.stem for path in TESTS.glob("app/accounts/tests/test_*.py")}
    for name in options.names:
        if name not in tests and "unit" not in wanted:
            parser.error(f"no such test: {name} (there are: {', '.join(sorted(tests))})")
    OUTPUT.mkdir(exist_ok=True)

    finished = []

    def run_parts(names, *args):
        for name in names:
            print(f"\n== {name}", flush=True)
            part = Part(name)
            PARTS[name](part, options, *args)
            if part.passed + part.failed == 0 and not options.names and name != "random":
                part.check(name, fail, "there was nothing to run")  # green must mean that something passed
            finished.append(part)
            print(f"{name}: {part.passed} passed, {part.failed} failed", flush=True)

    run_parts([name for name in wanted if name in WITHOUT_SERVER])
    if with_server := [name for name in wanted if name not in WITHOUT_SERVER]:
        print("\n== PostgreSQL", options.pg, flush=True)
        if not options.library:
            subprocess.run([TESTS / "setup.sh", "install", CONFIG["pg"][options.pg]["pg_config"]], check=True)
        with Cluster(options.pg, options.library) as server:
            try:
                run_parts(with_server, server)
            finally:
                crashes = server.crashes()
                (OUTPUT / "server.log").write_text(server.log())
        if crashes:
            print("\nthe server crashed:\n" + "\n".join(crashes))
        if crashes or any(part.failed for part in finished):
            print("\nthe server's log, its end (all of it: tests/output/server.log):")
            print("\n".join((OUTPUT / "server.log").read_text().splitlines()[-15:]))
        if crashes:
            sys.exit(1)

    failed = [part.name for part in finished if part.failed]
    print("\nall passed" if not failed else f"\nfailed: {', '.join(failed)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
