"""Concurrent transactions at random (stress.py): the seeds that have failed before, then that of --seed."""

import sys

import pytest

from lib.cluster import TESTS
from lib.seeds import known, run_seed

SEEDS = TESTS / "stress/seeds"


@pytest.mark.parametrize("seed, seconds", [
    *(pytest.param(seed, seconds, id=f"seed{seed}") for seed, seconds in known(SEEDS)),
    pytest.param(None, None, id="own"),
])  # fmt: skip
def test_stress(server, pytestconfig, say, seed, seconds):
    seed, seconds = seed or pytestconfig.getoption("--seed"), seconds or f"{pytestconfig.getoption('--seconds') or 60:g}"
    server.fresh("stress", "stress")
    command = [sys.executable, "-m", "stress.stress", "--dbname", "stress", "--seed", seed, "--seconds", seconds]
    say(run_seed(command, SEEDS, f"{seed} {seconds}", log=f"stress_seed{seed}.log", cwd=TESTS, env=server.env, timeout=float(seconds) + 300))
