"""A database for each test; and the older majors that it is moved from."""

import pytest

from lib import oldest
from lib.cluster import Cluster, pg_config
from lib.command import run


def older_majors(config):
    return [major for major in config.getoption("older") or ["15"] if int(major) < int(config.getoption("--pg"))]


def pytest_ignore_collect(collection_path, config):
    """Nothing is moved to a major from itself; and Debian 12 has pg_repack for 15."""
    here = {"test_moves.py": bool(older_majors(config)), "test_repack.py": config.getoption("--pg") == "15"}
    return None if here.get(collection_path.name, True) else True


def pytest_generate_tests(metafunc):
    if "older" in metafunc.fixturenames:
        metafunc.parametrize("older", older_majors(metafunc.config), indirect=True)


@pytest.fixture
def older(request, install):
    """A server of an older major, for this test alone: of its oldest minor release, since PostgreSQL promises to take over
    no release that is younger than the new major's own. With checksums, as pg_upgrade wants both servers or neither."""
    install(request.param)
    libraries = run([pg_config(request.param), "--pkglibdir"]).strip()
    folder = oldest.install(request.param, f"{libraries}/profile_cache.so")
    with Cluster(request.param, initdb=["--data-checksums"], asked=folder / "pg_config") as cluster:
        yield cluster


@pytest.fixture
def database(server, request):
    """The name of an empty database, the test's own."""
    name = request.node.name.removeprefix("test_")
    server.fresh("servers", name)
    yield name
    # What a test that failed leaves prepared would hold up whoever waits for older transactions: the tests after it.
    if not server.running():
        server.start()
    left = "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = '{}' \\gexec\n"
    server.sql(name, left.format(name))
