"""The files under monitoring/ by themselves: the exporters' queries, as a member of pg_monitor and nothing more; the rules, by
promtool; the board, by the script that makes it."""

import re
import sys

import psycopg
import pytest
import yaml

from lib.cluster import ROOT
from lib.command import Failed, run
from monitoring import exporters

FILES = ["postgres_exporter", "sql_exporter", "pgwatch"]
PROMETHEUS = exporters.FOLDER / "prometheus"
# What all three exporters take for a number: sql_exporter takes no boolean, pgwatch no numeric.
NUMBERS = {"int4", "int8", "float8"}


def rules():
    return [rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]


def columns(connection, sql):
    """The columns of what it returns, by name, and the rows."""
    cursor = connection.execute(sql)
    return {c.name: connection.adapters.types[c.type_code].name for c in cursor.description}, cursor.fetchall()


def queries(file, connection):
    """All of a file. Where a query alone knows its columns, it is run."""
    found = exporters.read(file)
    if file != "pgwatch":
        return found
    return exporters.of_columns(found, {name: columns(connection, sql)[0] for name, (sql, _) in found.items()})


@pytest.mark.parametrize("file", FILES)
def test_queries(watcher, say, file):
    """Each query runs, and its columns are the metrics, of types that the exporter reads."""
    values = 0
    for name, query in queries(file, watcher).items():
        found, rows = columns(watcher, query.sql)
        found = {column.removeprefix("tag_"): kind for column, kind in found.items() if column != "epoch_ns"}
        if set(found) != query.labels | set(query.metrics):
            raise Failed(f"{name}: columns {sorted(found)}, named are {sorted(query.labels | set(query.metrics))}")
        if odd := {column: kind for column, kind in found.items() if kind not in ({"text"} if column in query.labels else NUMBERS)}:
            raise Failed(f"{name}: {odd}")
        if not rows:
            raise Failed(f"{name}: no row")
        values += len(rows) * len(query.metrics)
    say(f"{values} values")


def test_one_set_of_metrics(watcher, say):
    """The same queries, and from them the same metrics, whichever exporter is used."""
    first = queries(FILES[0], watcher)
    for file in FILES[1:]:
        others = queries(file, watcher)
        for name in first.keys() | others.keys():
            one, other = (plain(q[name].sql) if name in q else "no such query" for q in (first, others))
            if one != other:
                raise Failed(f"{name}\n{FILES[0]}: {one}\n{file}: {other}")
        here, there = exporters.made(first), exporters.made(others)
        if file == "pgwatch":  # it has no words for them
            here = {name: metric._replace(help=None) for name, metric in here.items()}
        if here != there:
            raise Failed(f"{file}: {sorted(here.items() ^ there.items())}")
    say(f"{len(exporters.made(first))} metrics")


def plain(sql):
    """pgwatch's without what it alone has."""
    sql = re.sub(r"\(extract\(epoch FROM clock_timestamp\(\)\) \* 1e9\)::bigint AS epoch_ns,\s*", "", sql)
    sql = re.sub(r"\.(\w+) AS tag_\1,", r".\1,", sql)
    return re.sub(r"\s+", " ", sql.replace("AS tag_", "AS ")).strip()


def test_nothing_made_up(watched, watcher):
    """What is not counted has no row, and what nobody can look at is NULL: no zeros. All else is still told."""
    found = exporters.read(FILES[0])
    with psycopg.connect(host=str(watched.dir), port=watched.port, user=watched.user, dbname="app", autocommit=True) as owner:
        owner.execute("SET profile_cache.track = off")
        for name in ("profile_cache_stats", "profile_cache_stats_misses"):
            if rows := columns(owner, found[name].sql)[1]:
                raise Failed(f"{name}, where nothing is counted: {rows}")
        with owner.transaction():
            owner.execute("LOCK TABLE user_profile")
            names, (row,) = columns(watcher, found["profile_cache_status"].sql)
    said = dict(zip(names, row, strict=True))
    unknown = {name for name, value in said.items() if value is None}
    if unknown != {"profiles", "profiles_cached", "profiles_stale"}:
        raise Failed(f"not known while the table is locked: {unknown}")


def test_no_more_rights(watcher):
    """Who may run them may not read what profiles are."""
    for sql in ("SELECT * FROM user_profile", "SELECT * FROM profile_document", "SELECT profile_cache.stats_reset()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            watcher.execute(sql)


def test_promtool(say):
    run(["promtool", "check", "rules", PROMETHEUS / "rules.yml"])
    run(["promtool", "test", "rules", PROMETHEUS / "rules_test.yml"])
    tested = re.findall(r'alertname="(\w+)"', (PROMETHEUS / "rules_test.yml").read_text())
    if left := {rule["alert"] for rule in ALERTS} ^ set(tested):
        raise Failed(f"not tested to fire, or no alert: {left}")
    say(f"{len(ALERTS)} alerts")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert(watcher, rule):
    """It has what whoever is on call wants; its SQL runs, as the exporter's role; its page has a heading for it."""
    said = rule["annotations"]
    if set(rule) != {"alert", "expr", "for", "labels", "annotations"} or set(rule["labels"]) != {"severity"}:
        raise Failed(f"{sorted(rule)}, {sorted(rule['labels'])}")
    if set(said) != {"summary", "description", "runbook"}:
        raise Failed(f"{sorted(said)}")
    sql = said["description"].splitlines()[-1]
    if not re.match(r"SELECT .*;$", sql):
        raise Failed(f"its description does not end with SQL: {sql}")
    columns(watcher, sql)
    page, _, anchor = said["runbook"].partition("#")
    if anchor != rule["alert"].lower() or f"\n## {rule['alert']}\n" not in (ROOT / page).read_text():
        raise Failed(f"no such heading: {said['runbook']}")


def test_board_is_what_its_script_makes():
    if run([sys.executable, exporters.FOLDER / "grafana/board.py"]) != (exporters.FOLDER / "grafana/profile_cache.json").read_text():
        raise Failed("monitoring/grafana: board.py > profile_cache.json")


def test_metrics_of_rules_and_board(watcher):
    """What the rules and the board ask for is made."""
    known = set(exporters.made(queries(FILES[0], watcher))) | {rule["record"] for rule in rules() if "record" in rule}
    for path in (PROMETHEUS / "rules.yml", PROMETHEUS / "rules_test.yml", exporters.FOLDER / "grafana/profile_cache.json"):
        asked = set(re.findall(r"(?:datname:)?profile_cache_(?:stats|status|health|\w+:rate5m)\w*", path.read_text()))
        if not asked or asked - known:
            raise Failed(f"{path.name}: {sorted(asked - known) or 'nothing'}")
