"""docs/scale.md says what follows from its inputs; the simulation is right where the answer is known; what measures the inputs
works, and measures each of them.
"""

import re

import pytest

from bench import peers
from lib.command import Failed
from scale import measure, plan, simulate


def near(what, got, wanted, within):
    if not abs(got - wanted) <= within * wanted:
        raise Failed(f"{what}: {got:.6g}, expected {wanted:.6g} within {100 * within:g} %")


def test_page():
    text = plan.PAGE.read_text()
    if plan.written(text) != text:
        raise Failed("docs/scale.md has a table that its inputs do not give: cd tests && python3 -m scale.plan --write")


def test_page_follows_each_input():
    """Something follows from each input, but for those that are shown beside another."""
    i = plan.inputs(plan.PAGE.read_text())
    # What only the simulation takes: computing it for each of them takes long.
    simulated = {name for name in i if name.startswith("`warm`") or name == "cores that readers of a server have"}
    shown = {name for name in i if re.search("without the extension|packed|document as|alone:|(sign-up|role|profile): µs|(role|profile): bytes|restore of a dump: bytes", name)}

    def tables(**changed):
        return plan.planned(i | changed), plan.nodes(i | changed)

    idle = {name for name in i if all(tables(**{name: i[name] * factor}) == tables() for factor in (100, 0.01))}
    if idle != simulated | shown:
        raise Failed(f"nothing follows from {idle - simulated - shown}; {(simulated | shown) - idle} were not expected to matter")


@pytest.mark.parametrize("cores, busy", [(1, 0.5), (4, 0.8), (8, 0.6)])
def test_waiting(cores, busy):
    """M/M/c: as many wait as Erlang's formula says, and as long."""
    hit = 30e-6
    run = simulate.run(simulate.Shard(cores, busy * cores / hit, hit, hit, 1000), 250_000 * hit / (busy * cores))
    waits = simulate.erlang_c(cores, busy * cores)
    near("who waits", run.waited / run.arrivals, waits, 0.06)
    near("how long it takes", run.mean(), hit + waits * hit / (cores * (1 - busy)), 0.04)


def test_waiting_for_misses():
    """M/G/1: hits and misses, each of exactly its length; how long it takes, by Pollaczek and Khinchine."""
    hit, miss, share, reads = 30e-6, 130e-6, 1 / 3, 8_000
    shard = simulate.Shard(1, reads, hit, miss, 3000, share, 0.0, (0.0,), steady=True)
    run = simulate.run(shard, 40)
    mean, square = ((1 - share) * hit**n + share * miss**n for n in (1, 2))
    near("misses", len(run.missed) / run.arrivals, share, 0.01)
    near("how long it takes", run.mean(), mean + reads * square / (2 * (1 - reads * mean)), 0.03)


def test_misses_until_refreshed():
    """Until a pass is through, half of the reads of those who have the plan miss; and none before the edit and after the pass."""
    i = {"users who have the commonest plan: %": 30, "workers of a database": 1, "document of a plan's edit: µs of CPU": 100, "document of a plan's edit: bytes of WAL": 1, "WAL that one database may write: MB a second": 1}
    users, reads = 100_000, 20_000
    passed = 0.3 * users / plan.refreshed(i)
    run = simulate.run(simulate.Shard(4, reads, 30e-6, 120e-6, users, 0.3, plan.refreshed(i), (1.0,)), 6)
    near("misses", len(run.missed), plan.missed(i, reads, users), 0.04)
    if run.misses(until=1.0) or run.misses(since=1.0 + passed):
        raise Failed("misses before the edit, or after the pass")


def test_seed():
    shard = simulate.Shard(2, 10_000, 30e-6, 120e-6, 1000, 0.3, 1000, (0.1,))
    if simulate.run(shard, 1).waits != simulate.run(shard, 1).waits:
        raise Failed("not the same from the same seed")


def test_measure(server, pytestconfig, monkeypatch):
    """With few users and once: every figure of the page's table is measured, and none is nothing."""
    monkeypatch.setattr(measure, "ROUNDS", 1)
    with peers.Server(pytestconfig.getoption("--pg"), pytestconfig.getoption("--library"), 2000, 1) as private:
        rounds = measure.measured(private, 2000)
    table = re.search(r"^\| input \| measured \|$\n(.*?)\n\n", plan.PAGE.read_text(), re.MULTILINE | re.DOTALL)[1]
    page = set(plan.inputs(table))
    if page != set(rounds):
        raise Failed(f"only on the page: {page - set(rounds)}; only measured: {set(rounds) - page}")
    if nothing := [what for what, values in rounds.items() if "bytes" in what and not what.startswith("read") and min(values) <= 0]:
        raise Failed(f"nothing was measured: {nothing}")
