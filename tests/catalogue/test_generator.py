"""Random views (generator.py), in two processes, and those that failed once (found/)."""

import collections
import json
import subprocess
import sys

import pytest

from lib.cluster import OUTPUT, TESTS
from lib.command import Failed, run

FOUND = sorted((TESTS / "catalogue/found").glob("*.sql"))
PROCESSES = 2


def command(server, database, *options):
    server.create(database)
    return [str(word) for word in (sys.executable, "-m", "catalogue.generator", "--dbname", database, *options)]


@pytest.mark.parametrize("script", [*(pytest.param(path, id=path.stem) for path in FOUND), pytest.param(None, id="own")])
def test_generator(server, pytestconfig, say, script):
    if script:
        say(run(command(server, "found", "--replay", script), log=f"generator_{script.stem}.log", cwd=TESTS, env=server.env, timeout=120))
        return
    seconds = pytestconfig.getoption("--seconds") or 45
    if seconds < 10:
        seconds = 10  # such a number is meant for one view of the catalogue
    begin, logs, running = 10_000 * pytestconfig.getoption("--seed"), [], []
    for number in range(PROCESSES):
        words = command(server, f"generator_{number}", "--seed", begin + number, "--step", PROCESSES, "--seconds", seconds)
        logs.append(OUTPUT / f"generator_{number}.log")
        with logs[-1].open("w") as log:
            running.append(subprocess.Popen(words, cwd=TESTS, env=server.env, stdout=log, stderr=subprocess.STDOUT))
    try:
        ended = [process.wait(seconds + 120) for process in running]
    finally:
        for process in running:
            process.kill()
    said = [log.read_text() for log in logs]
    if any(ended):
        raise Failed("\n".join(text for text, status in zip(said, ended) if status))
    figures = collections.defaultdict(collections.Counter)
    for text in said:
        for name, counts in json.loads(text.splitlines()[-1]).items():
            figures[name].update(counts)
    say(told(figures))
    if wrong := list(too_little(figures)):
        raise Failed("\n".join([told(figures), *wrong]))


def told(figures):
    c = figures["counts"]
    refused = collections.Counter()
    for said, times in figures["refusals"].items():
        refused[said.split()[0]] += times
    return (
        f"{c['views']} views over {c['schemas']} schemas: {c['accepted']} accepted, {refused.total()} refused ({', '.join(f'{k} {v}' for k, v in refused.most_common())}), "
        f"{figures['invalid'].total()} no views; {c['writes']} writes, {c['reads']} documents compared, {c['hits'] / max(1, c['reads']):.0%} from the cache; "
        f"of the accepted, a write changed a document of {c['views changed']}, and it was then served from the cache in {c['views changed and cached']}\n"
        f"refused most: {'; '.join(f'{v} {k}' for k, v in figures['refusals'].most_common(5))}"
    )


def too_little(figures):
    """Why a run shows nothing."""
    c = figures["counts"]
    for what, part, whole, least in (
        ("views are accepted", c["accepted"], c["views"], 0.15),
        ("views are views", c["views"] - figures["invalid"].total(), c["views"], 0.97),
        ("accepted views had a document changed", c["views changed"], c["accepted"], 0.6),
        ("accepted views had a changed document served from the cache", c["views changed and cached"], c["accepted"], 0.55),
        ("documents came from the cache", c["hits"], c["reads"], 0.5),
    ):
        if not whole or part < least * whole:
            yield f"only {part} of {whole} {what}: this shows nothing"
    if c["accepted"] < 10:
        yield f"only {c['accepted']} views: this shows nothing"
