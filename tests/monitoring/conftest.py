"""A server that has preloaded the library, with a filled database `app`, its worker, and a role of the exporter's."""

import subprocess

import psycopg
import pytest

from lib.cluster import TESTS, Cluster
from lib.filled import fill

USERS = 3000
EXPORTER = "profile_cache_exporter"


class Preloaded(Cluster):
    def start(self, data="data", port=None, **more):
        # Vacuum in time, as the rules here are sixty times as fast as they would be.
        super().start(data, port, **({"shared_preload_libraries": "profile_cache", "autovacuum_naptime": "1s"} | more))


@pytest.fixture(scope="session")
def watched(pytestconfig, install):
    major, library = pytestconfig.getoption("--pg"), pytestconfig.getoption("--library")
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        subprocess.run([TESTS / "setup.sh", "monitoring"], check=True)
    install(major)
    with Preloaded(major, library) as server:
        server.create("app")
        fill(server, "app", USERS)
        server.sql("app", "CREATE INDEX ON user_profile (cached_profile_valid_until); ALTER TABLE user_profile SET (fillfactor = 70)")
        server.sql("postgres", f"CREATE ROLE {EXPORTER} LOGIN IN ROLE pg_monitor")
        server.sql("postgres", "ALTER SYSTEM SET profile_cache.databases = 'app';\nSELECT pg_reload_conf();")
        yield server
        if crashes := server.crashes():
            pytest.fail("the server crashed:\n" + "\n".join(crashes), pytrace=False)


@pytest.fixture
def watcher(watched):
    """A connection of the exporter's role."""
    with psycopg.connect(host=str(watched.dir), port=watched.port, user=EXPORTER, dbname="app", autocommit=True) as connection:
        yield connection
