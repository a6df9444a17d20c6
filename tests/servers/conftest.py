"""A database for each test."""

import pytest


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
