"""SQL files, with PostgreSQL's own pg_regress: sql/, expected/. include/ is what they share."""

import pytest

from lib import pg_regress


@pytest.mark.parametrize("name", pg_regress.tests("regress"))
def test_regress(server, pytestconfig, name):
    pg_regress.check(server, "regress", name, pytestconfig.getoption("--accept"), pytestconfig.getoption("--step-timeout"))
