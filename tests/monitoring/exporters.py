"""What each exporter makes of its file, by the rules that its own source has. A file with a key that it does not know, or without
one that it wants, is Failed.

    made(path): a metric for each value, by its name; queries(path): the SQL by name, with the columns that are labels and values
"""

from typing import NamedTuple

import yaml

from lib.cluster import ROOT
from lib.command import Failed

FOLDER = ROOT / "monitoring"


class Query(NamedTuple):
    sql: str
    labels: frozenset
    # By column: which metric it becomes, its kind, and what is said of it (pgwatch: nothing).
    metrics: dict


class Metric(NamedTuple):
    kind: str
    labels: frozenset
    help: str | None


def keys(where, found, wanted, more=()):
    if not set(wanted) <= set(found) <= {*wanted, *more}:
        raise Failed(f"{where}: has {sorted(found)}, wanted {sorted(wanted)}, may have {sorted(more)}")
    return [found[key] for key in wanted]


def postgres_exporter(content):
    """Version 0.11, queries.go: each query is the beginning of its metrics' names, each column the rest."""
    found = {}
    for name, query in content.items():
        sql, columns = keys(name, query, ["query", "metrics"], ["master", "cache_seconds", "runonserver"])
        labels, metrics = set(), {}
        for column in columns:
            ((column, options),) = column.items()
            usage, description = keys(f"{name}.{column}", options, ["usage", "description"])
            if usage == "LABEL":
                labels.add(column)
            elif usage in ("COUNTER", "GAUGE"):
                metrics[column] = (f"{name}_{column}", usage.lower(), description)
            else:
                raise Failed(f"{name}.{column}: usage {usage}")
        found[name] = Query(sql, frozenset(labels), metrics)
    return found


def sql_exporter(content):
    """config/*.go, which refuse keys that they do not know: each metric names a query and one of its columns."""
    _, metrics, queries = keys("file", content, ["collector_name", "metrics", "queries"], ["min_interval"])
    found = {}
    for query in queries:
        name, sql = keys("query", query, ["query_name", "query"], ["no_prepared_statement"])
        found[name] = (sql, set(), {})
    for metric in metrics:
        name, kind, said, labels, (value,), query = keys("metric", metric, ["metric_name", "type", "help", "key_labels", "values", "query_ref"])
        if kind not in ("counter", "gauge"):
            raise Failed(f"{name}: type {kind}")
        found[query][1].add(frozenset(labels))
        found[query][2][value] = (name, kind, said)
    if mixed := [name for name, (_, labels, _) in found.items() if len(labels) != 1]:
        raise Failed(f"{mixed}: not used, or metrics of one query have different labels")
    return {name: Query(sql, *labels, metrics) for name, (sql, labels, metrics) in found.items()}


def pgwatch(content):
    """internal/metrics/types.go and sinks/prometheus.go: a column that begins with tag_ is a label, epoch_ns the time, the others
    are metrics: gauges where they are listed, counters else. We say with which prefix they are found."""
    metrics, presets = keys("file", content, ["metrics", "presets"])
    ((_, preset),) = presets.items()
    if set(preset["metrics"]) != set(metrics):
        raise Failed(f"the preset has {sorted(preset['metrics'])}")
    found = {}
    for name, metric in metrics.items():
        (sqls,) = keys(name, metric, ["sqls"], ["gauges"])
        ((_, sql),) = sqls.items()
        found[name] = (sql, metric.get("gauges", []))
    return found


def of_columns(found, columns):
    """pgwatch's, where the columns of each query are known."""
    queries = {}
    for name, (sql, gauges) in found.items():
        labels = frozenset(c.removeprefix("tag_") for c in columns[name] if c.startswith("tag_"))
        values = [c for c in columns[name] if not c.startswith("tag_") and c != "epoch_ns"]
        if unknown := set(gauges) - set(values):
            raise Failed(f"{name}: gauges that are no columns: {unknown}")
        queries[name] = Query(sql, labels, {c: (f"{name}_{c}", "gauge" if c in gauges else "counter", None) for c in values})
    return queries


def read(file):
    return {"postgres_exporter": postgres_exporter, "sql_exporter": sql_exporter, "pgwatch": pgwatch}[file](yaml.safe_load((FOLDER / f"{file}.yaml").read_text()))


def made(queries):
    """By name, what the metrics are."""
    return {metric: Metric(kind, query.labels, said) for query in queries.values() for metric, kind, said in query.metrics.values()}
