#!/usr/bin/env python3
"""Draws the panels of the board as Grafana would, from what a test has scraped: draw.py board.json board.png

A stand-in for Grafana, to look at: which panel shows what, and whether it can be read. Runs in tests/.venv-bench.
"""

import json
import math
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {0: "#73bf69", 1: "#ff9830", 2: "#f2495c"}
UNITS = {"percentunit": "share", "reqps": "reads/s", "ops": "/s", "s": "s"}


def short(legend):
    """There is one database and one server in the picture."""
    return legend.partition(", app on")[0].partition(" (app on")[0].partition("app on")[0] or "app"


def lines(axes, panel, began):
    series = [(short(s["legend"]), [t - began for t, _ in s["points"]], [v for _, v in s["points"]]) for s in panel["series"]]
    if panel["stacked"]:
        every = [t for _, at, _ in series for t in at]
        times = [min(every) + n for n in range(round(max(every) - min(every)) + 1)]
        values = [[{round(t): v for t, v in zip(at, of, strict=True)}.get(round(t), 0) for t in times] for _, at, of in series]
        axes.stackplot(times, values, labels=[name for name, _, _ in series], alpha=0.7)
    else:
        for name, at, of in series:
            # A gap is a gap: nothing was scraped, or nothing is known.
            gaps = [i for i in range(1, len(at)) if at[i] - at[i - 1] > 1.5]
            for i in reversed(gaps):
                at, of = [*at[:i], at[i] - 0.5, *at[i:]], [*of[:i], math.nan, *of[i:]]
            axes.plot(at, of, label=name, linewidth=1.3)
    axes.set_ylim(0, panel["max"])
    axes.set_ylabel(UNITS.get(panel["unit"], ""))
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.1), ncols=6, frameon=False)


def stripes(axes, panel, began):
    for row, series in enumerate(reversed(panel["series"])):
        at = [(t - began, 1) for t, _ in series["points"]]
        axes.broken_barh(at, (row - 0.4, 0.8), facecolors=[COLORS.get(value, "#cccccc") for _, value in series["points"]])
    axes.set_yticks(range(len(panel["series"])), [short(s["legend"]) for s in reversed(panel["series"])], fontsize=8)


def main(source, target):
    data = json.loads(pathlib.Path(source).read_text())
    panels, marks = data["panels"], data["marks"]
    began = marks[0][0]
    figure, axes = plt.subplots(math.ceil(len(panels) / 2), 2, figsize=(18, 3.4 * math.ceil(len(panels) / 2)), layout="constrained")
    for panel, at in zip(panels, axes.flat, strict=False):
        (stripes if panel["type"] == "state-timeline" else lines)(at, panel, began)
        at.set_title(panel["title"], fontsize=10, loc="left", fontweight="bold", pad=12)
        for n, (when, _) in enumerate(marks):
            at.axvline(when - began, color="grey", linewidth=0.6, linestyle=":")
            at.text(when - began, 1, str(n), transform=at.get_xaxis_transform(), fontsize=7, color="grey", ha="center", va="bottom")
        at.grid(alpha=0.25)
    for at in axes.flat[len(panels) :]:
        at.axis("off")
    figure.supxlabel("seconds;   " + "   ".join(f"{n}: {text}" for n, (_, text) in enumerate(marks)), fontsize=7, wrap=True)
    figure.savefig(target, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
