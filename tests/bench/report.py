"""What `make bench` measured (results.json), as report.md with charts and as summary.md, for docs/performance.md.

    cd tests && .venv-bench/bin/python -m bench.report FOLDER

Reads only figures and computes only medians and ratios, so it can be run again on an older results.json.
"""

import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

# One colour for each peer wherever it appears; the order is that of the legend.
COLOURS = {
    "bare": "#8a8f98", "cached": "#1f6fd6", "plpgsql": "#e07b1a", "matview": "#4c9f70", "prepared": "#1f6fd6", "simple": "#9cc3f0",
    "view": "#8a8f98", "": "#1f6fd6",
}  # fmt: skip

# Phases of which the summary has all, and not only what has a target.
IN_SUMMARY = ("reads", "lists", "warm", "life", "callers", "awake")


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(values):
    if None in values:
        return "–"  # nothing to count
    median = number(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({number(min(values))}–{number(max(values))})"


def table(head, lines):
    return "\n".join(["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines]]) + "\n"


def ratios(row, peer):
    """Of each round to the same round of its peer; the figures themselves where there is no peer."""
    return [a / b for a, b in zip(row["values"], peer["values"])] if peer else row["values"]


def met(values, target):
    if target is None:
        return "", ""
    sign, limit = target.split()
    limit = float(limit)

    def reached(value):
        return value >= limit if sign == ">=" else value <= limit

    said = "yes" if reached(statistics.median(values)) else "**no**"
    rounds = sum(map(reached, values))
    if 0 < rounds < len(values):
        said += f", in {rounds} of {len(values)} rounds"
    return f"{'≥' if sign == '>=' else '≤'} {limit:g}", said


def comparisons(rows):
    """(row, what it is compared with, its ratios, target) of all rows, in order."""
    named = {(row["phase"], row["what"]): row for row in rows}
    for row in rows:
        for other, target in row["against"].items():
            yield row, other, ratios(row, named[row["phase"], other] if other else None), target


def phase_tables(rows):
    lines = []
    for row in rows:
        against = [c for c in comparisons(rows) if c[0] is row]
        first = [row["what"], spread(row["values"]) + " " + row["unit"]]
        for _, other, values, target in against or [(row, "", None, None)]:
            lines.append([*first, other, spread(values) if other else "", *(met(values, target) if values else ("", ""))])
            first = ["", ""]
    yield table(["what", "median (least–most)", "beside", "ratio (least–most)", "target", "met"], lines)
    for names in dict.fromkeys(tuple(row["more"]) for row in rows):
        if names:
            more = [row for row in rows if tuple(row["more"]) == names]
            yield table(["what", *names], [[row["what"], *(spread(row["more"][name]) for name in names)] for row in more])


def charts(rows, folder):
    """One chart for each name in `chart`: curves where x is a number, else bars. Yields file names."""
    drawn = [row for row in rows if row["chart"]]
    for title in dict.fromkeys(row["chart"][0] for row in drawn):
        mine = [row for row in drawn if row["chart"][0] == title]
        series = dict.fromkeys(row["chart"][1] for row in mine)
        places = list(dict.fromkeys(row["chart"][2] for row in mine))
        figure, axes = plt.subplots(figsize=(8, 4))
        for i, line in enumerate(series):
            points = [(row["chart"][2], row["values"]) for row in mine if row["chart"][1] == line]
            heights = [statistics.median(values) for _, values in points]
            errors = [[h - min(v) for h, (_, v) in zip(heights, points)], [max(v) - h for h, (_, v) in zip(heights, points)]]
            colour = COLOURS.get(line, f"C{i}")
            if isinstance(places[0], str):
                width = 0.8 / len(series)
                at = [places.index(x) + (i - (len(series) - 1) / 2) * width for x, _ in points]
                axes.bar(at, heights, width * 0.92, yerr=errors, error_kw={"elinewidth": 0.8}, color=colour, label=line)
            else:
                axes.errorbar([x for x, _ in points], heights, yerr=errors, marker="o", markersize=4, capsize=2, color=colour, label=line)
        if isinstance(places[0], str):
            axes.set_xticks(range(len(places)), places, rotation=0 if len(places) < 5 else 20, ha="center" if len(places) < 5 else "right")
        else:
            axes.set_xscale("log")
            axes.set_xticks(places, [f"{x:,}" for x in places])
            axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_ylabel(mine[0]["unit"])
        yield finished(figure, axes, title, folder, len(series) > 1)


def curves(drawn, folder):
    """One chart for each title, a line for each series. Yields file names."""
    for title in dict.fromkeys(curve["title"] for curve in drawn):
        mine = {curve["series"]: curve["points"] for curve in drawn if curve["title"] == title}
        figure, axes = plt.subplots(figsize=(8, 4))
        for i, (series, points) in enumerate(mine.items()):
            axes.plot(*zip(*points), linewidth=1.5, color=f"C{i}", label=series)
        axes.set_ylim(0, 102)
        axes.set_xlim(left=0)
        axes.set_xlabel("s")
        yield finished(figure, axes, title, folder, len(mine) > 1)


def finished(figure, axes, title, folder, legend):
    """The file with the chart."""
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4)
    axes.set_axisbelow(True)
    if legend:
        axes.legend(frameon=False)
    name = "".join(c if c.isalnum() else "_" for c in title).strip("_").lower() + ".svg"
    figure.tight_layout()
    figure.savefig(folder / name, metadata={"Date": None})
    plt.close(figure)
    return f"![{title}]({name})\n"


def about(results):
    m, o = results["machine"], results["options"]
    return (
        f"{m['date']}, PostgreSQL {m['PostgreSQL']}, {m['cpu']}, {m['cores']} cores, {m['memory']}, {m['system']}, {m['disk']}; "
        f"{o['users']:,} users, rounds of {o['seconds']} s, {o['rounds']} of most.\n"
    )


def report(results, folder):
    yield "# profile_cache and its peers\n"
    yield about(results)
    yield (
        "Peers are measured in interleaved rounds. A ratio is that of one round's figures; medians over the rounds, with the least and the\n"
        "most. pgbench, unix socket, one client unless said otherwise (then on one core with its backend), each time another user. The key is computed in SQL\n"
        "(`md5('user' || n)::uuid`), which costs every peer the same microsecond or two. `bare`: no triggers of ours; `cached`: the\n"
        "extension attached; `plpgsql`: hand-written row triggers. All have the same rows, and the same view builds their documents.\n"
    )
    yield "Settings: " + ", ".join(f"`{name} = {value}`" for name, value in results["settings"].items()) + ".\n"
    for phase, doc in results["phases"].items():
        rows = [row for row in results["rows"] if row["phase"] == phase]
        yield f"## {phase.capitalize()}\n"
        yield f"{doc}\n"
        yield from (f"Note: {note['text']}.\n" for note in results.get("notes", []) if note["phase"] == phase)
        yield from curves([curve for curve in results.get("curves", []) if curve["phase"] == phase], folder)
        yield from charts(rows, folder)
        yield from phase_tables(rows)


def summary(results):
    yield about(results)
    lines = [
        [row["what"], f"{spread(row['values'])} {row['unit']}", other, spread(values) if other else "", *met(values, target)]
        for row, other, values, target in comparisons(results["rows"]) if target or row["phase"] in IN_SUMMARY
    ]  # fmt: skip
    yield table(["what", "median (least–most)", "beside", "ratio", "target", "met"], lines)


def main(report, summary):
    """report.md and summary.md of a folder's results.json, by these."""
    folder = pathlib.Path(sys.argv[1])
    results = json.loads((folder / "results.json").read_text())
    (folder / "report.md").write_text("\n".join(report(results, folder)))
    (folder / "summary.md").write_text("\n".join(summary(results)))
    print(f"\n{(folder / 'summary.md').read_text()}\nAll of it: {folder / 'report.md'}")


if __name__ == "__main__":
    main(report, summary)
