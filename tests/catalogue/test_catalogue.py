"""Every view that is accepted (accepted/), attached and under random writes (catalogue.py), in a database of its own
with the same tables (schema.sql, rows.sql)."""

import sys

import pytest

from lib.cluster import TESTS
from lib.command import Vacuous
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
    seed = seed or pytestconfig.getoption("--seed")
    seconds = seconds or f"{pytestconfig.getoption('--seconds') or 0.5:g}"
    # On a busy machine a view may see too little happen to show anything: then with other seeds, but not for ever.
    for more in (0, 1000, 2000):
        try:
            say(one_seed(server, template, view, str(int(seed) + more), seconds))
            return
        except Vacuous:
            if more == 2000:
                raise


def one_seed(server, template, view, seed, seconds):
    database, log = f"catalogue_{view}_{seed}", f"catalogue_{view}_seed{seed}.log"
    server.create(database, template=template)
    command = [
        sys.executable, "-m", "catalogue.catalogue", "--dbname", database, "--view", FOLDER / f"accepted/{view}.sql", "--seed", seed, "--seconds", seconds,
    ]  # fmt: skip
    said = run_seed(command, SEEDS, f"{view} {seed} {seconds}", log=log, cwd=TESTS, env=server.env, timeout=20 * float(seconds) + 120)
    server.drop(database)
    return said
