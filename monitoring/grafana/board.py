#!/usr/bin/env python3
"""Prints the board, profile_cache.json: board.py > profile_cache.json

The JSON beside this file is what this prints, and a test holds it to that: change this one. It wants grafana-foundation-sdk, of
the version in tests/requirements.txt. The uid stays as it is, so that links and bookmarks do. All queries are of the metrics
that the exporters' files make, not of recorded rules, so that the board does without those.
"""

from grafana_foundation_sdk.builders import common, dashboard, prometheus, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, SortOrder, StackingMode, TooltipDisplayMode, VisibilityMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DashboardCursorSync,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
OF = '{datname=~"$datname", instance=~"$instance"}'
# What a panel's lines are called, where they are of one database and one server each.
WHERE = "{{datname}} on {{instance}}"


def rate(metric):
    return f"rate({metric}{OF}[$__rate_interval])"


def total(metric, by="instance, datname"):
    return f"sum by ({by}) ({rate(metric)})"


HITS, MISSES = total("profile_cache_stats_hits_total"), total("profile_cache_stats_misses_total")


def targets(panel, queries):
    for letter, (legend, expr) in zip("ABCDEFGH", queries.items(), strict=False):
        panel.with_target(prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(expr).legend_format(legend).range())
    return panel


def lines(title, description, unit, queries, stacked=False):
    """A panel of lines, half as wide as the board."""
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
    panel = timeseries.Panel().title(title).description(description).datasource(SOURCE).unit(unit).min(0).height(8).span(12)
    panel.legend(legend).tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    panel.show_points(VisibilityMode.NEVER).line_width(1).fill_opacity(30 if stacked else 0)
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return targets(panel, queries)


def health():
    """A stripe for each check: green, orange, red."""
    states = [("ok", "green"), ("warning", "orange"), ("critical", "red")]
    mapped = {str(n): ValueMappingResult(text=text, color=color, index=n) for n, (text, color) in enumerate(states)}
    steps = [Threshold(value=n or None, color=color) for n, (_, color) in enumerate(states)]
    panel = statetimeline.Panel().title("Health").datasource(SOURCE).height(10).span(24).merge_values(True)
    panel.description("The checks of profile_cache.health(). Its column advice says what to do.")
    panel.mappings([ValueMap(options=mapped)])
    panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    panel.show_value(VisibilityMode.NEVER).row_height(0.8).fill_opacity(80)
    return targets(panel, {"{{check_name}} (" + WHERE + ")": f"profile_cache_health_state{OF}"})


def variable(name, label):
    every = VariableOption(selected=True, text="All", value="$__all")
    values = f"label_values(profile_cache_health_state, {name})"
    v = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(values).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return v.multi(True).include_all(True).all_value(".*").current(every)


def reads(board):
    board.with_row(dashboard.Row("Reads"))
    ratio = {WHERE: f"{HITS} / ({HITS} + {MISSES})"}
    board.with_panel(lines("Hit ratio", "Of all reads, those that were served the stored document.", "percentunit", ratio).max(1))
    board.with_panel(lines("Reads", "A miss computes the document by the view: slower, and as right.", "reqps", {f"hits, {WHERE}": HITS, f"misses, {WHERE}": MISSES}))
    reasons = {"{{reason}}": f"{total('profile_cache_stats_misses_total', 'reason')} > 0"}
    board.with_panel(lines("Misses by reason", "Why the stored document was not served.", "reqps", reasons, stacked=True))
    spent = {WHERE: f"{total('profile_cache_stats_computed_on_read_seconds_total')} / ({MISSES} > 0)"}
    board.with_panel(lines("What a miss costs", "The time that a read spends on computing its document, on the average.", "s", spent))


def keeping(board):
    board.with_row(dashboard.Row("Keeping the cache"))
    by = {f"by {who}, {WHERE}": total(f"profile_cache_stats_computed_{name}_total") for who, name in [("commits", "at_commit"), ("refresh", "by_refresh"), ("the worker", "by_worker")]}
    board.with_panel(lines("Documents computed", "By whom, each second, without those that reads compute.", "ops", by))
    commits = {f"commits, {WHERE}": total("profile_cache_stats_computed_at_commit_seconds_total"), f"reads, {WHERE}": total("profile_cache_stats_computed_on_read_seconds_total")}
    board.with_panel(lines("Time spent computing", "Seconds each second: 1 is one core.", "short", commits))
    waiting = {f"{what}, {WHERE}": f"profile_cache_status_pending_{name}{OF}" for what, name in [("single profiles", "keys"), ("changes to many", "epochs")]}
    board.with_panel(lines("Pending", "What waits for refresh.", "short", waiting))
    age = {WHERE: f"profile_cache_status_oldest_pending_seconds{OF}"}
    board.with_panel(lines("Oldest pending", "For how long the oldest pending change waits.", "s", age))
    profiles = {f"{state}, {WHERE}": f"profile_cache_status_profiles_{state}{OF}" for state in ("cached", "stale", "failing")}
    board.with_panel(lines("Profiles", "Those that would be served from the cache now, the others, and those that cannot be computed.", "short", profiles))
    kinds = {"single profiles left": "pending_keys", "changes to many": "pending_epochs", "locks not had": "locks_not_had", "failures": "failures", "notifications": "notifications"}
    left = {f"{what}, {WHERE}": total(f"profile_cache_stats_{name}_total") for what, name in kinds.items()}
    board.with_panel(lines("Left to refresh", "What commits leave to refresh, why, and what they tell listeners, each second.", "ops", left))


def state(board):
    board.with_row(dashboard.Row("State"))
    board.with_panel(health())
    counts = {f"{what}, {WHERE}": f"profile_cache_status_{name}{OF}" for what, name in [("warnings", "warnings"), ("transactions waited for", "held_up_by"), ("triggers off", "disabled_triggers")]}
    board.with_panel(lines("What wants attention", "Their text is in profile_cache.status.", "short", counts))
    hot = f"{rate('profile_cache_status_table_hot_updates_total')} / ({rate('profile_cache_status_table_updates_total')} > 0)"
    dead = f"profile_cache_status_table_dead_rows{OF} / (profile_cache_status_table_dead_rows{OF} + profile_cache_status_table_live_rows{OF} > 0)"
    shares = {f"updates that are HOT, {WHERE}": hot, f"rows that are dead, {WHERE}": dead}
    board.with_panel(lines("Profile table", "Many HOT updates and few dead rows are good.", "percentunit", shares).max(1))


def board():
    made = dashboard.Dashboard("profile_cache").uid("profile-cache").tags(["postgresql", "profile_cache"]).description("The cache of profiles: hits, misses, what is pending, health.")
    made.time("now-6h", "now").refresh("1m").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR).editable()
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    made.with_variable(variable("datname", "Database")).with_variable(variable("instance", "Server"))
    for row in (reads, keeping, state):
        row(made)
    return made.build()


if __name__ == "__main__":
    print(JSONEncoder(sort_keys=True, indent=2).encode(board()))
