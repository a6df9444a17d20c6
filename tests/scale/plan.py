"""docs/scale.md's tables, computed from the inputs on that page: what was measured, and what is assumed.

    cd tests && python3 -m scale.plan            prints them as they should be
    python3 -m scale.plan --write                writes them into the page

The page is the only place that has the inputs. A test says where a table is not what follows from them.
"""

import argparse
import math
import re
import sys

from lib.cluster import ROOT
from scale import simulate

PAGE = ROOT / "docs/scale.md"
SIZES = (10_000_000, 100_000_000, 1_000_000_000)
DAY = 86_400


def inputs(text):
    """Name and number of each row of the page's tables of inputs."""
    found, text = {}, re.sub(r"<!-- computed: .*?<!-- end -->", "", text, flags=re.DOTALL)
    for name, value in re.findall(r"^\| ([^|]+?) \| ([\d.,]+)(?: %)? \|(?:[^|]*\|)?$", text, re.MULTILINE):
        found[name] = float(value.replace(",", ""))
    return found


def number(value):
    """Three digits are as many as anything here is good for."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def span(seconds):
    for unit, length in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * length or unit == "s":
            return f"{number(seconds / length)} {unit}"


def shards(i, users):
    """How many databases: so many that in each the common plan's refresh, the fill and the data keep within the limits."""
    documents = refreshed(i)
    limits = {
        "refresh of the plan": i["refresh of the plan, at most: seconds"] * documents / share(i),
        "fill": i["fill, at most: seconds"] * filled(i),
        "data": i["data of one database, at most: GB"] * 1e9 / stored(i),
    }
    least = min(limits, key=limits.get)
    return math.ceil(users / limits[least]), least


def share(i):
    return i["users who have the commonest plan: %"] / 100


def refreshed(i):
    """Documents a second after an edit, by all workers of a database: as many as their cores compute, and the log takes."""
    return min(i["workers of a database"] * 1e6 / i["document of a plan's edit: µs of CPU"], logged(i, "document of a plan's edit"))


def filled(i):
    share = i["share of their time that they fill: %"] / 100
    return min(i["workers of a database"] * share * 1e6 / i["document of a fill: µs of CPU"], logged(i, "document of a fill"))


def logged(i, what):
    return i["WAL that one database may write: MB a second"] * 1e6 / i[f"{what}: bytes of WAL"]


def stored(i):
    return i["room: times the filled size"] * (i["tables, filled: bytes a user"] + i["indexes, filled: bytes a user"])


def peak(i, per_day):
    return per_day * i["peak: times the mean"] / DAY


def plan(i):
    """Rows of the table, each with how it is computed and its figure for each size."""
    changes, signs = i["changes a user a day"], i["sign-ups a day: % of the users"] / 100
    wal_day = changes * i["change of a subscription: bytes of WAL"] + signs * i["sign-up: bytes of WAL"]
    change, edit = i["change of a subscription: µs of CPU"], share(i) * i["document of a plan's edit: bytes of WAL"]
    hit, miss, wanted = i["read from the cache: µs of CPU"], i["read from the view: µs of CPU"], i["reads a user a day"]
    copies = i["copies of each database"]
    rows = [  # what, how, of all users and of those of a shard
        ("databases (shards)", "users ÷ users in each", lambda users, mine: f"{shards(i, users)[0]:,}"),
        ("users in each", "the most that the limits leave, or fewer", lambda users, mine: number(mine)),
        ("the limit that decides", "", lambda users, mine: shards(i, users)[1]),
        ("data of each", "room × bytes a user × users", lambda users, mine: f"{number(stored(i) * mine / 1e9)} GB"),
        ("disk for all copies", "the same × shards × copies", lambda users, mine: f"{number(stored(i) * users * copies / 1e12)} TB"),
        ("reads a second, all", "at the peak", lambda users, mine: number(peak(i, users * wanted))),
        ("cores for them, all hits", "× µs of a hit", lambda users, mine: number(peak(i, users * wanted) * hit / 1e6)),
        ("cores for them, all misses", "× µs of a miss", lambda users, mine: number(peak(i, users * wanted) * miss / 1e6)),
        ("changes a second, each", "at the peak", lambda users, mine: number(peak(i, mine * changes))),
        ("cores for them, each", "× µs of a change", lambda users, mine: number(peak(i, mine * changes) * change / 1e6)),
        ("WAL of changes and sign-ups, each", "bytes × how many", lambda users, mine: f"{number(wal_day * mine / 1e9)} GB a day"),
        ("WAL of an edit of the plan, each", "share × users × bytes", lambda users, mine: f"{number(edit * mine / 1e9)} GB"),
        ("refresh after it", "share × users ÷ documents a second", lambda users, mine: span(share(i) * mine / refreshed(i))),
        ("misses a second at first, all", "reads × share", lambda users, mine: number(peak(i, users * wanted) * share(i))),
        ("misses until it is through, all", "half of that × the time", lambda users, mine: number(missed(i, peak(i, users * wanted), mine))),
        ("fill after a restore", "users ÷ documents a second", lambda users, mine: span(mine / filled(i))),
        ("copy of each", "data without room ÷ MB a second", lambda users, mine: span(stored(i) / i["room: times the filled size"] * mine / 1e6 / i["copying: MB a second"])),
        ("restore of a dump, by one job", "µs a user × users", lambda users, mine: span(mine * i["restore of a dump: µs of CPU"] / 1e6)),
    ]  # fmt: skip
    return [(what, how, [value(users, users / shards(i, users)[0]) for users in SIZES]) for what, how, value in rows]


def missed(i, reads, users):
    """Reads that miss while a pass goes through those who have the plan: at first all of theirs, in the end none."""
    return reads * share(i) * (share(i) * users / refreshed(i)) / 2


def planned(i):
    head = "| | how | " + " | ".join(f"{users / 1e6:,.0f} million users" for users in SIZES) + " |"
    lines = [head, "| --- " * (2 + len(SIZES)) + "|"]
    lines += [f"| {what} | {how} | {' | '.join(figures)} |" for what, how, figures in plan(i)]
    return "\n".join(lines)


def nodes(i):
    """Reads a second that the nodes together have cores for, where each has the same number of them."""
    lines, total = ["| nodes | reads a second, by one core of each |", "| --- | --- |"], 0
    for n, name in enumerate(("the primary", "a standby", "another standby"), 1):
        total += 1e6 / i[f"read on {name}, beside the others: µs of CPU"]
        lines.append(f"| {n} | {number(total)} |")
    return "\n".join(lines)


# The simulation


def latencies(i):
    """p99 of reads by how busy the cores are with hits alone, and after an edit of the plan, as long as nobody has refreshed."""
    hit, miss = i["read from the cache: µs of CPU"] / 1e6, i["read from the view: µs of CPU"] / 1e6
    cores = int(i["cores that readers of a server have"])
    grown = 1 - share(i) + share(i) * miss / hit
    lines = ["| cores busy with hits | p99, hits alone | cores busy after the edit | p99 until refresh comes | would wait, by Erlang C |", "| --- " * 5 + "|"]
    for busy in (0.2, 0.3, 0.4, 0.5, 0.7, 0.9):
        shard = simulate.Shard(cores, busy * cores / hit, hit, miss, 100_000, share(i))
        seconds = 60_000 / shard.reads
        calm = simulate.run(shard, seconds)
        edited = simulate.run(simulate.Shard(cores, shard.reads, hit, miss, 100_000, share(i), 0.0, (0.0,)), seconds)
        after = f"{1e6 * edited.percentile(0.99):,.0f} µs" if busy * grown < 1 else "grows without end"
        waits = f"{100 * simulate.erlang_c(cores, busy * grown * cores):.3g} %" if busy * grown < 1 else "all"
        lines.append(f"| {100 * busy:.0f} % | {1e6 * calm.percentile(0.99):,.0f} µs | {100 * busy * grown:.0f} % | {after} | {waits} |")
    return "\n".join(lines)


def hits(i):
    """Hits as in the bench's phase `warm`: what the simulation gives, and what was measured there."""
    lines = ["| `warm` (100,000 users, a plan of a third edited every 20 s) | hits, simulated | hits, measured |", "| --- | --- | --- |"]
    base = {"cores": 2, "reads": 400, "hit": 30e-6, "miss": 120e-6, "users": 100_000, "share": 1 / 3, "documents": i["`warm`: documents a second"]}
    edits = tuple(float(at) for at in range(20, 151, 20))

    def share_of(first, refreshes, since):
        run = simulate.run(simulate.Shard(**base, edits=edits, refreshes=refreshes), 150)
        came = sum(at >= since for at, _ in run.waits)
        return 100 * (1 - run.misses(since) / came)

    lines.append(f"| with the worker | {share_of(20, None, 20):.1f} % | {i['`warm`: hits with the worker']:.1f} % |")
    # Cron comes just before the edit that falls on its minute, or just after it.
    before, after = (share_of(60, tuple(at + by for at in (0.0, 60.0, 120.0)), 60) for by in (-0.1, 0.1))
    lines.append(f"| `CALL refresh()` once a minute | {before:.1f} to {after:.1f} % | {i['`warm`: hits with cron']:.1f} % |")
    return "\n".join(lines)


TABLES = {"planned": planned, "nodes": nodes, "latencies": latencies, "hits": hits}


def marked(name, text):
    """The table between its marks on the page."""
    found = re.search(rf"<!-- computed: {name} -->\n\n(.*?)\n\n<!-- end -->", text, re.DOTALL)
    if not found:
        raise SystemExit(f"{PAGE}: no place for the table {name}")
    return found


def written(text):
    """The page with its tables as they should be."""
    i = inputs(text)
    for name, table in TABLES.items():
        found = marked(name, text)
        text = text[: found.start(1)] + table(i) + text[found.end(1) :]
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    text = written(PAGE.read_text())
    if parser.parse_args().write:
        PAGE.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
