"""Interleavings of sessions, with PostgreSQL's own isolation tester: specs/, expected/. setup.sql is where all begin."""

import pytest

from lib import pg_regress


@pytest.mark.parametrize("name", pg_regress.tests("isolation"))
def test_isolation(server, pytestconfig, name):
    pg_regress.check(server, "isolation", name, pytestconfig.getoption("--accept"), pytestconfig.getoption("--step-timeout"))
