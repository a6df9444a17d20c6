"""What `make bench-app` measured (results.json), as report.md with charts and as summary.md.

    charts.py FOLDER

Tables and charts are those of ../bench/report.py. Reads only figures, so it can be run again on an older results.json.
"""

import json
import pathlib
import statistics
import sys

sys.path.append(sys.path[0] + "/../bench")

from report import COLOURS, about, charts, comparisons, met, number, phase_tables, spread, table

COLOURS |= {"direct": "#1f6fd6", "PgBouncer": "#9cc3f0"}
LATENCIES = ["p50 ms", "p95 ms", "p99 ms"]

TITLES = {
    "without a server": (
        "The app called in its own process, one call after the other: middleware, URL, token, view, database, response; no HTTP and no\n"
        "server. Time in the database is that of Django's execute(), so with the way there and back.\n"
        "`redis` keeps what the serializer gave and renders it, as the app did; `redis_text`, which the app does not have, would keep\n"
        "the text and answer as get_profile does.\n"
    ),
    "server": "Through gunicorn, straight to PostgreSQL. CPU is that of gunicorn's workers for each request.\n",
    "pgbouncer": "The same through PgBouncer in transaction mode.\n",
}


def method(results):
    o = results["options"]
    return (
        "The four variants of `tests/app`, in interleaved rounds; a ratio is that of one round's figures; medians over the rounds, with\n"
        f"the least and the most. Each variant has a gunicorn of its own (`{' '.join(results['gunicorn'])}`;\n"
        f"`DEBUG` off, `CONN_MAX_AGE` 60). wrk asks over {results['connections']} kept connections, each time for a random user of\n"
        f"{o['users']:,}, with his own token. Redis is full at the start of each of its rounds. All the while another process\n"
        f"changes users as the app does, up to {1 / results['pause']:.0f} times a second, with the signals that Redis needs.\n\n"
        f"**Load generator, server, PostgreSQL, Redis and PgBouncer share {results['machine']['cores']} cores**: requests a second are\n"
        "of all that together, and latencies are those of a machine that has nothing left. `nothing` is the same gunicorn with\n"
        "an application that does nothing: no variant can be faster.\n\n"
        "Hits: of Redis by its own counters, of get_profile by `profile_cache.explain` of a thousand random users after each round.\n"
    )


def median_of(row, name=None):
    return statistics.median(row["more"][name] if name else row["values"])


def split(results):
    """Where the milliseconds of a request go, and how much of each part get_profile saves."""
    rows = {(row["phase"], row["what"]): row for row in results["rows"]}
    nothing = median_of(rows["server", "nothing"], "CPU ms")
    parts = {}
    for variant in ("as_it_was", "prefetched", "redis", "get_profile"):
        inside, through = rows["without a server", variant], rows["server", variant]
        took, database, cpu = median_of(inside), median_of(inside, "ms in the database"), median_of(through, "CPU ms")
        parts[variant] = [database, took - database, took, 1000 / median_of(through), cpu, cpu - nothing]
    parts["as_it_was / get_profile"] = [a / b for a, b in zip(parts["as_it_was"], parts["get_profile"])]
    head = ["ms", "database", "Python", "both", "1 / (requests/s)", "CPU of its workers", "less that of `nothing`"]
    yield table(head, [[what, *map(number, values)] for what, values in parts.items()])


def checked(results):
    yield table(
        ["", "writes meanwhile", "answers compared afterwards", "stale: prefetched", "stale: redis", "stale: get_profile"],
        [[phase, *map(str, checks.values())] for phase, checks in results["checks"].items()],
    )
    yield "`profile_cache.verify()` of every user found nothing.\n"


def report(results, folder):
    yield "# The app, with and without profile_cache\n"
    yield about(results)
    yield method(results)
    yield from charts(results["rows"], folder)
    for phase, title in TITLES.items():
        yield f"## {phase.capitalize()}\n"
        yield title
        yield from phase_tables([row for row in results["rows"] if row["phase"] == phase])
    yield "## Where the time goes\n"
    yield from split(results)
    yield "## Stale answers\n"
    yield from checked(results)


def summary(results):
    yield about(results)
    rows = results["rows"]
    inside = {row["what"]: row for row in rows if row["phase"] == "without a server"}
    for phase in ("server", "pgbouncer"):
        mine = {row["what"]: row for row in rows if row["phase"] == phase}
        first = mine["as_it_was"]
        lines = [
            [
                what, spread(row["values"]), spread([a / b for a, b in zip(row["values"], first["values"])]),
                *(spread(row["more"][name]) for name in LATENCIES),
                number(statistics.median(inside[what]["more"]["queries"])), spread(row["more"]["hits %"]),
                *([spread(inside[what]["values"])] if phase == "server" else []),
            ]
            for what, row in mine.items() if what in inside
        ]  # fmt: skip
        head = [phase, "requests/s", "of as_it_was", *LATENCIES, "queries", "hits %"]
        yield table([*head, *(["ms without a server"] if phase == "server" else [])], lines)
    targets = [line for phase in TITLES for line in phase_targets(rows, phase)]
    targets.append(["queries for each request", *exactly(1, max(inside["get_profile"]["more"]["queries"]))])
    targets.append(["stale answers", *exactly(0, sum(checks["stale, get_profile"] for checks in results["checks"].values()))])
    yield table(["target: get_profile", "ratio (least–most)", "target", "met"], targets)
    yield from split(results)
    yield from checked(results)


def phase_targets(rows, phase):
    mine = [row for row in rows if row["phase"] == phase]
    for row, other, values, target in comparisons(mine):
        if target:
            yield [f"{phase}: {row['unit']} beside {other}", spread(values), *met(values, target)]


def exactly(target, value):
    return number(value), str(target), "yes" if value == target else "**no**"


def main():
    folder = pathlib.Path(sys.argv[1])
    results = json.loads((folder / "results.json").read_text())
    (folder / "report.md").write_text("\n".join(report(results, folder)))
    (folder / "summary.md").write_text("\n".join(summary(results)))
    print(f"\n{(folder / 'summary.md').read_text()}\nAll of it: {folder / 'report.md'}")


if __name__ == "__main__":
    main()
