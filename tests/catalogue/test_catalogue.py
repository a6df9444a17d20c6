"""Every view that is accepted (accepted/), attached and under random writes (catalogue.py), in a database of its own
with the same tables (schema.sql, rows.sql)."""

import sys

import pytest

from lib.cluster import TESTS
from lib.seeds import known, run_seed

FOLDER = TESTS / "catalogue"
SEEDS = FOLDER / "seeds"
VIEWS = [path.stem for path in sorted((FOLDER / "accepted").glob("*.sql"))]


@pytest.fixture(scope="session")
def template(server):
    server.create("catalogue")
    server.sql("catalogue", "CREATE EXTENSION profile_cache;" + (FOLDER / "schema.sql").read_text() + (FOLDER / "rows.sql").read_text())
    return "catalogue"


@pytest.mark.parametrize("view, seed, seconds", [
    *(pytest.param(view, seed, seconds, id=f"{view}-seed{seed}") for view, seed, seconds in known(SEEDS)),
    *(pytest.param(view, None, None, id=view) for view in VIEWS),
])  # fmt: skip
def test_catalogue(server, template, pytestconfig, say, view, seed, seconds):
    seed, seconds = seed or pytestconfig.getoption("--seed"), seconds or f"{pytestconfig.getoption('--seconds') or 0.5:g}"
    database, log = f"catalogue_{view}", f"catalogue_{view}_seed{seed}.log"
    server.create(database, template=template)
    command = [
        sys.executable, "-m", "catalogue.catalogue", "--dbname", database, "--view", FOLDER / f"accepted/{view}.sql", "--seed", seed, "--seconds", seconds,
    ]  # fmt: skip
    line = f"{view} {seed} {seconds}"
    say(run_seed(command, SEEDS, line, log=log, cwd=TESTS, env=server.env, timeout=20 * float(seconds) + 120))
    server.drop(database)
