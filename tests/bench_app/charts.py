"""What `make bench-app` measured (results.json), as report.md with charts and as summary.md.

    cd tests && .venv-bench/bin/python -m bench_app.charts FOLDER

Tables and charts are those of ../bench/report.py. Reads only figures, so it can be run again on an older results.json.
"""

import statistics

from bench.report import COLOURS, about, charts, comparisons, main, met, number, phase_tables, ratios, spread, table

COLOURS |= {"direct": "#1f6fd6", "PgBouncer": "#9cc3f0"}
LATENCIES = ["p50 ms", "p95 ms", "p99 ms"]

VARIANTS = {
    "as_it_was": "as it was", "prefetched": "prefetched", "redis": "Redis", "get_profile": "`get_profile`",
    "redis_text": "text in Redis, the short way", "get_profile_rest": "`get_profile`, the long way",
}  # fmt: skip
TITLES = {
    "without a server": (
        "The app called in its own process, one call after the other: middleware, URL, token, view, database, response; no HTTP and no\n"
        "server. Time in the database is that of Django's execute(), so with the way there and back. All pending: nothing is in the\n"
        "cache, each call computes its document. Row security: as the role `authenticated`, under policies, in a transaction.\n"
    ),
    "server": "Through gunicorn, straight to PostgreSQL. CPU is that of gunicorn's workers for each request.\n",
    "pgbouncer": "The same through PgBouncer in transaction mode.\n",
}


def method(results):
    o = results["options"]
    return (
        "The four variants of `tests/app`, in interleaved rounds; a ratio is that of one round's figures; medians over the rounds, with\n"
        f"the least and the most. Each variant has its own gunicorns, one for each core (`{' '.join(results['gunicorn'])}`;\n"
        f"`DEBUG` off, `CONN_MAX_AGE` 60). wrk asks over {results['connections']} kept connections, the same number to each, each time for a random\n"
        f"user of {o['users']:,}, with his own token. Redis is full at the start of each of its rounds. All the while another process\n"
        f"changes users as the app does, up to {1 / results['pause']:.0f} times a second, with the signals that Redis needs. No plan or role\n"
        "changes: after that every answer of `get_profile` is computed until the next refresh (`all pending` below).\n\n"
        f"**Load generator, server, PostgreSQL, Redis and PgBouncer share {results['machine']['cores']} cores**: requests a second are\n"
        "of all that together, and latencies are those of a machine that has nothing left. `nothing` is the same gunicorn with\n"
        "an application that does nothing: no variant can be faster.\n\n"
        "`get_profile` goes past REST framework's request, renderer and response: what it has to say is text already. `redis` keeps\n"
        "what the serializer gave, and renders it, as the app did. Two variants that the app does not have take that apart:\n"
        "`redis_text` keeps text and goes the short way too, `get_profile_rest` goes the long one.\n\n"
        "Hits: of Redis by how often something was put into it, of get_profile by `profile_cache.explain` of a thousand random users\n"
        "after each round. Queries: counted by the app in that server, over 500 random users after the last round.\n"
    )


def median_of(row, name=None):
    return statistics.median(row["more"][name] if name else row["values"])


def split(results):
    """Where the milliseconds of a request go, and how much of each part get_profile saves."""
    rows = {(row["phase"], row["what"]): row for row in results["rows"]}
    nothing = median_of(rows["server", "nothing"], "CPU ms")
    parts = {}
    for variant in VARIANTS:
        inside, through = rows["without a server", variant], rows["server", variant]
        took, database, cpu = median_of(inside), median_of(inside, "ms in the database"), median_of(through, "CPU ms")
        parts[variant] = [database, took - database, took, 1000 / median_of(through), cpu, cpu - nothing]
    parts["as_it_was / get_profile"] = [a / b for a, b in zip(parts["as_it_was"], parts["get_profile"])]
    head = ["ms", "database", "Python", "both", "1 / (requests/s)", "CPU of its workers", "less that of `nothing`"]
    yield table(head, [[what, *map(number, values)] for what, values in parts.items()])


def checked(results):
    """While users change, the writer's own look after each of its writes; afterwards, over HTTP, half of those who were changed."""
    lines = []
    for phase, checks in results["checks"].items():
        for variant in [variant for variant in VARIANTS if variant != "as_it_was"]:
            meanwhile = [str(checks.get(f"{what}, {variant}", 0)) for what in ("asked", "stale")] if f"asked, {variant}" in checks else ["–", "–"]
            afterwards = str(checks[f"stale afterwards, {variant}"])
            lines.append([phase, variant, str(checks["writes"]), *meanwhile, str(checks["asked, afterwards"]), afterwards])
    yield table(["", "", "writes", "looked at meanwhile", "stale", "asked for afterwards", "stale"], lines)
    problems = results["verify"]
    yield f"`profile_cache.verify()` of every user found {'nothing' if problems == [] else problems or 'out nothing: it did not run'}.\n"


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
    for phase, checks in results["checks"].items():
        mine = {row["what"]: row for row in rows if row["phase"] == phase}
        first = mine["as_it_was"]
        head = [phase, "requests/s", "of as it was", *LATENCIES, "queries", "hits %"]
        yield table(head, [
            [
                name, spread(mine[what]["values"]), spread(ratios(mine[what], first)), *(spread(mine[what]["more"][p]) for p in LATENCIES),
                number(checks[f"queries, {what}"]), spread(mine[what]["more"]["hits %"]),
            ]
            for what, name in VARIANTS.items()
        ])  # fmt: skip
    inside = {row["what"]: row for row in rows if row["phase"] == "without a server"}
    as_it_was = {what: inside["as_it_was, row security" if "row security" in what else "as_it_was"] for what in inside}
    yield table(
        ["without a server", "ms", "of as it was, likewise", "of them in the database"],
        [
            [VARIANTS.get(what, what), spread(row["values"]), spread(ratios(row, as_it_was[what])), spread(row["more"]["ms in the database"])]
            for what, row in inside.items()
        ],
    )
    targets = [line for phase in TITLES for line in phase_targets(rows, phase)]
    for phase, checks in results["checks"].items():
        targets.append([f"{phase}: queries for each request", *exactly(1, checks["queries, get_profile"])])
        targets.append([f"{phase}: stale answers", *exactly(0, sum(checks.get(f"{when}, get_profile", 0) for when in ("stale", "stale afterwards")))])
    yield table(["what", "ratio (least–most)", "target", "met"], targets)
    yield from split(results)
    yield from checked(results)


def phase_targets(rows, phase):
    mine = [row for row in rows if row["phase"] == phase]
    for row, other, values, target in comparisons(mine):
        yield [f"{phase}: {row['unit']} of {row['what']} beside {other}", spread(values), *met(values, target)]


def exactly(target, value):
    return number(value), str(target), "yes" if value == target else "**no**"


if __name__ == "__main__":
    main(report, summary)
