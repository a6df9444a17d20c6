"""What `make test` runs: a folder of tests a part, in the order of PARTS, on one private PostgreSQL.

    tests/.venv/bin/pytest                                          all of it, as `make test` does
    tests/.venv/bin/pytest tests/regress tests/isolation            some parts
    tests/.venv/bin/pytest tests/regress -k 'attach or refresh'     some tests of a part
    tests/.venv/bin/pytest --lf                                     those that failed the last time
    tests/.venv/bin/pytest tests/stress --seed 7 --seconds 600
    tests/.venv/bin/pytest tests/servers/test_moves.py --pg 18 --from 15 --from 16      moved from these majors to that
    tests/.venv/bin/pytest tests/regress -k attach --accept         takes what came out as expected

(`tests/setup.sh venv` makes tests/.venv.) Each part ends with a line `NAME: N passed, N failed`. Green means that something
ran, all of it, and passed: a part without tests is an error, a test that skips itself fails, and so does a run after
which the server's log tells of a crash. Results and logs are left in tests/output.
"""

import os
import signal
import subprocess
import textwrap

import pytest

from lib.cluster import CONFIG, OUTPUT, TESTS, Cluster, pg_config
from lib.command import Failed

PARTS = ["lint", "unit", "regress", "isolation", "stress", "catalogue", "servers", "nodes", "shards", "scale", "monitoring", "django", "app", "docs", "package"]
# Django runs these (app/test_app.py).
collect_ignore = ["app/accounts"]


def pytest_addoption(parser):
    group = parser.getgroup("profile_cache")
    group.addoption("--pg", default="15", choices=CONFIG["pg"], help="PostgreSQL's major version")
    group.addoption("--library", help="a folder with another profile_cache.so to test; nothing is installed then")
    group.addoption("--from", dest="older", action="append", choices=CONFIG["pg"], help="servers: moved from this major to the other, repeatable (15)")
    group.addoption("--accept", action="store_true", help="regress, isolation: results become the expected output")
    group.addoption("--step-timeout", type=int, default=60, help="isolation: seconds after which a step that hangs is cancelled (60)")
    group.addoption("--seed", type=int, default=1, help="stress, catalogue: where it starts (1)")
    group.addoption("--seconds", type=float, help="how long it runs: stress (60), each view of the catalogue (0.5)")


def pytest_configure(config):
    os.umask(0o022)  # as root, the server runs as the user postgres, who reads what tests write
    OUTPUT.mkdir(exist_ok=True)
    config.pluginmanager.register(Parts(config), "parts")


def part_of(path):
    return path.relative_to(TESTS).parts[0]


@pytest.hookimpl(tryfirst=True)  # before any is deselected
def pytest_collection_modifyitems(config, items):
    found = {part_of(item.path) for item in items}
    if unknown := found - set(PARTS):
        raise pytest.UsageError(f"no part, see PARTS in tests/conftest.py: {', '.join(sorted(unknown))}")
    items.sort(key=lambda item: PARTS.index(part_of(item.path)))
    asked = [(config.invocation_params.dir / arg.partition("::")[0]).resolve() for arg in config.args]
    for part in PARTS:
        if part not in found and any(folder in (TESTS, TESTS.parent, TESTS / part) for folder in asked):
            raise pytest.UsageError(f"tests/{part}: there is nothing to run")


# Verdicts


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    try:
        return (yield)
    except Failed as failure:
        said = str(failure)
    pytest.fail(said, pytrace=False)  # where the test was when it failed says no more


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"{item.nodeid} was not run: {report.longrepr}"
    return report


def pytest_report_teststatus(report):
    if report.when == "call" and report.passed:
        return "passed", ".", (f"ok ({report.duration:.1f} s)", {"green": True})


class Parts:
    """Prints a head and a closing line for each part, and what a test that passed has to say."""

    def __init__(self, config):
        self.config, self.part, self.failed, self.passed = config, None, set(), set()

    def print(self, text):
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        reporter.ensure_newline()
        reporter.write(text)
        reporter.currentfspath = -2  # it ends the line before the next one, as after a test

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        part = part_of(item.path)
        if part != self.part:
            self.part = part
            self.print(f"\n== {part}")
        result = yield
        if nextitem is None or part_of(nextitem.path) != part:
            self.print(f"{part}: {len(self.passed - self.failed)} passed, {len(self.failed)} failed")
            self.passed, self.failed = set(), set()
        return result

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)
            self.print(report.longreprtext)  # now: the run may never come to its summary
        elif report.when == "call":
            self.passed.add(report.nodeid)
            for name, text in report.user_properties:
                if name == "says":
                    self.print(text)


@pytest.fixture
def say(record_property):
    """say(text): prints it if the test passes; margin: before each line, none for the closing line of another runner."""
    return lambda text, margin=" " * 10: record_property("says", textwrap.indent(text.strip(), margin))


# The server


@pytest.fixture(scope="session")
def install(pytestconfig):
    """install(major): builds and installs the extension for it, unless this run is told of a library."""

    def install(major):
        if not pytestconfig.getoption("--library"):
            with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
                subprocess.run([TESTS / "setup.sh", "install", pg_config(major), "tested"], check=True)

    return install


@pytest.fixture(scope="session")
def server(pytestconfig, install):
    """The private server that all tests share, each with a database of its own."""
    major, library = pytestconfig.getoption("--pg"), pytestconfig.getoption("--library")
    install(major)
    with Cluster(major, library) as cluster:
        for number in (signal.SIGTERM, signal.SIGHUP):  # ends the run as Ctrl-C does; a test must not catch it
            signal.signal(number, lambda n, _: pytest.exit(f"signal {n}", 128 + n))
        try:
            yield cluster
        finally:
            (OUTPUT / "server.log").write_text(cluster.log())
            pytestconfig.stash[SERVER_RAN] = True
        if crashes := cluster.crashes():
            pytest.fail("the server crashed:\n" + "\n".join(crashes), pytrace=False)


SERVER_RAN = pytest.StashKey()


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if exitstatus and SERVER_RAN in config.stash:
        terminalreporter.section("the server's log, its end (all of it: tests/output/server.log)")
        for line in (OUTPUT / "server.log").read_text().splitlines()[-15:]:
            terminalreporter.write_line(line)
