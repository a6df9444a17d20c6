"""Debian's Prometheus and its exporter watch a server under load, whose state is made bad and mended again, in one way after the
other: the alerts that should fire do, no other does, and they end.

The rules are those of monitoring/, with less patience: of each hour there a minute is left, of each minute a second, of 60
seconds one. tests/output/monitoring has the transcript, what the board's panels show of the run, and a picture of them.
"""

import json
import pathlib
import re
import subprocess
import tempfile
import time
from typing import NamedTuple

import pytest

from lib.cluster import OUTPUT, TESTS
from lib.command import Failed, run
from lib.filled import Session, wait_for
from lib.prometheus import Exporter, Prometheus
from monitoring import exporters
from monitoring.conftest import EXPORTER, USERS

FOLDER = OUTPUT / "monitoring"
# How long all is watched when all is well; and how long after an alert what else comes of the same.
QUIET, SETTLE, LIMIT = 8, 3, 60

# As an app has it: mostly reads; a change of the reader's own, then a read, in one transaction; a change of his roles.
LOAD = {
    95: "SELECT get_profile(md5('user' || :n)::uuid);",
    4: "BEGIN; UPDATE user_profile SET full_name = 'User ' || random() WHERE id = :n; SELECT get_profile(md5('user' || :n)::uuid); END;",
    1: "DELETE FROM user_role WHERE user_id = :n AND role_id = 2; INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (:n, 2, now()) ON CONFLICT DO NOTHING;",
}


def impatient(rules):
    """The rules, sixty times as fast."""
    smaller = {"h": "m", "m": "s"}
    rules, times = re.subn(r"(?<=for: )(\d+)([hm])$|(?<=\[)(\d+)([hm])(?=\])", lambda m: (m[1] or m[3]) + smaller[m[2] or m[4]], rules, flags=re.MULTILINE)
    rules, seconds = re.subn(r"\* 60\b", "* 1", rules)
    if times < 20 or not seconds:
        raise Failed(f"{times} durations and {seconds} numbers of seconds in the rules")
    return rules


class Transcript:
    """What happened when, and which alerts fired meanwhile."""

    def __init__(self, server, prometheus):
        self.server, self.prometheus, self.began, self.lines, self.marks, self.firing = server, prometheus, time.time(), [], [], set()

    def say(self, text):
        self.lines.append(f"{time.time() - self.began:6.1f} s  {text}")

    def step(self, text):
        self.marks.append((time.time(), text))
        self.say(f"-- {text}")

    def look(self):
        now = {(name, labels["severity"]) for name, labels in self.prometheus.alerts().items()}
        for name, severity in sorted(now - self.firing):
            self.say(f"   {name} fires ({severity})")
        for name, _ in sorted(self.firing - now):
            self.say(f"   {name} has ended")
        self.firing = now
        return {name for name, _ in now}

    def until(self, what, found):
        """Looks until found(alerts that fire)."""
        deadline = time.monotonic() + LIMIT
        while not found(self.look()):
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not in {LIMIT} s\n{self}\n{self.health()}")
            time.sleep(0.5)

    def watch(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.look()
            time.sleep(0.5)

    def fired_since(self, start):
        """Also those that nobody has looked at."""
        past = self.prometheus.range('ALERTS{alertstate="firing"}', start, time.time())
        return {labels["alertname"] for labels, _ in past}

    def health(self):
        return self.server.sql("app", "SELECT check_name, state, detail FROM profile_cache.health() WHERE state <> 'ok'")

    def __str__(self):
        return "\n".join(self.lines)


class Trouble(NamedTuple):
    what: str
    alerts: set
    make: object
    mended: str
    mend: object


@pytest.fixture(scope="module")
def load(watched):
    command = [watched.bindir / "pgbench", "-n", "-c", "2", "-T", "600", "-R", "200", "-L", "500", "app"]
    for weight, script in LOAD.items():
        file = watched.dir / f"load_{weight}.sql"
        file.write_text(f"\\set n random(1, {USERS})\n" + script.replace("; ", ";\n") + "\n")
        command += ["-f", f"{file}@{weight}"]
    log = FOLDER / "load.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file:
        process = subprocess.Popen([str(c) for c in command], env=watched.env, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    yield process
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def services(watched, load):
    """The exporter and Prometheus, on a server that has work to do."""
    dsn = f"host={watched.dir} port={watched.port} user={EXPORTER} dbname=app sslmode=disable"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        rules = folder / "rules.yml"
        rules.write_text(impatient((exporters.FOLDER / "prometheus/rules.yml").read_text()))
        with Exporter(folder, dsn, exporters.FOLDER / "postgres_exporter.yaml") as exporter, Prometheus(folder, exporter.address, rules) as prometheus:
            try:
                yield exporter, prometheus
            finally:
                for service in (exporter, prometheus):
                    (FOLDER / service.log.name).write_text(service.log.read_text())


def test_exporter(services, say):
    """What it hands out is what its file says, and it has nothing to complain of."""
    exporter, _ = services
    text = exporter.get("/metrics")
    kinds = dict(re.findall(r"^# TYPE (profile_cache_\w+) (\w+)$", text, re.MULTILINE))
    wanted = exporters.made(exporters.read("postgres_exporter"))
    if kinds != {name: metric.kind for name, metric in wanted.items()}:
        raise Failed(f"{sorted(kinds.items() ^ {name: metric.kind for name, metric in wanted.items()}.items())}")
    for name, metric in wanted.items():
        labels = set(re.findall(r'(\w+)="', re.search(rf"^{name}{{(.*)}} ", text, re.MULTILINE)[1])) - {"server"}
        if labels != metric.labels:
            raise Failed(f"{name}: labels {labels}, wanted {set(metric.labels)}")
    if not re.search(r"^pg_exporter_last_scrape_error 0$", text, re.MULTILINE):
        raise Failed(exporter.log.read_text()[-3000:])
    say(f"{len(re.findall(r'^profile_cache_', text, re.MULTILINE))} samples")


def troubles(server, exporter):
    """In their order. Each is ended before the next."""

    def listed(*names):
        server.sql("postgres", f"ALTER SYSTEM SET profile_cache.databases = '{', '.join(names)}';\nSELECT pg_reload_conf();")

    def crowd():
        for name in others:
            server.create(name)
        listed(*others)
        wait_for(server, "app", "the worker leaves app", "SELECT worker LIKE 'off: this database is not in %' FROM profile_cache.status")
        listed(*others, "app")
        server.sql("app", "UPDATE subscription_plan SET features = features || '{\"more\": true}'")

    def lock():
        holder.append(Session(server, "app", PGAPPNAME="a report"))
        holder[0].do("BEGIN; LOCK TABLE user_profile")

    others, holder = [f"other_{n}" for n in range(16)], []
    return [
        Trouble(
            "sixteen databases come before app in profile_cache.databases, so that the worker stops; plans are edited",
            {"ProfileCacheWorker", "ProfileCachePending", "ProfileCacheMisses"}, crowd, "app is the first again", lambda: listed("app"),
        ),
        Trouble("a session locks the profile table, and does nothing more", {"ProfileCacheHolders"}, lock, "it ends", lambda: holder[0].__exit__()),
        Trouble(
            "a trigger is disabled", {"ProfileCacheTriggers"}, lambda: server.sql("app", "ALTER TABLE user_role DISABLE TRIGGER USER"),
            "attach()", lambda: server.sql("app", "SELECT profile_cache.attach()"),
        ),
        Trouble(
            "a migration drops a foreign key", {"ProfileCacheAttachment"}, lambda: server.sql("app", "ALTER TABLE user_role DROP CONSTRAINT user_role_role_id_fkey"),
            "it has it back; attach()", lambda: server.sql("app", "ALTER TABLE user_role ADD FOREIGN KEY (role_id) REFERENCES role; SELECT profile_cache.attach()"),
        ),
        Trouble("the exporter is stopped", {"ProfileCacheNoMetrics"}, exporter.stop, "it is started", exporter.start),
    ]  # fmt: skip


def test_alerts(watched, services, load, say):
    """Each trouble has its alerts, alone, and they end with it. Then the board's panels, of all that was scraped."""
    exporter, prometheus = services
    transcript = Transcript(watched, prometheus)
    try:
        transcript.until("samples", lambda _: prometheus.query("datname:profile_cache_reads:rate5m > 0"))
        begin = time.time()
        transcript.step("all is well")
        transcript.watch(QUIET)
        quiet(transcript, begin)
        for trouble in troubles(watched, exporter):
            start = time.time()
            transcript.step(trouble.what)
            trouble.make()
            transcript.until(f"alerts {sorted(trouble.alerts)}", lambda firing, trouble=trouble: trouble.alerts <= firing)
            transcript.watch(SETTLE)
            if (fired := transcript.fired_since(start)) != trouble.alerts:
                raise Failed(f"{trouble.what}: {sorted(fired)} fired, wanted {sorted(trouble.alerts)}\n{transcript}\n{transcript.health()}")
            transcript.step(trouble.mended)
            trouble.mend()
            transcript.until("no alert", lambda firing: not firing)
        mended = time.time()
        transcript.watch(SETTLE)
        quiet(transcript, mended)
        if load.poll() is not None:
            raise Failed(f"the load has ended:\n{(FOLDER / 'load.log').read_text()}")
    finally:
        (FOLDER / "transcript.txt").write_text(f"{transcript}\n")
    say(str(transcript))
    panels = board(prometheus, begin, time.time())
    (FOLDER / "board.json").write_text(json.dumps({"panels": panels, "marks": transcript.marks}, indent=1))
    run([TESTS / ".venv-bench/bin/python", TESTS / "monitoring/draw.py", FOLDER / "board.json", FOLDER / "board.png"])
    say(f"{len(panels)} panels, drawn in tests/output/monitoring/board.png")


def quiet(transcript, start):
    if fired := transcript.fired_since(start):
        raise Failed(f"{sorted(fired)} fired while all was well\n{transcript}\n{transcript.health()}")


def board(prometheus, start, end):
    """What each panel of the board shows of the run. Each of its queries has something to show."""
    shown = []
    for panel in json.loads((exporters.FOLDER / "grafana/profile_cache.json").read_text())["panels"]:
        if panel["type"] == "row":
            continue
        series = []
        for target in panel["targets"]:
            # What Grafana puts in: all of both variables, and four times the interval of scrapes.
            expression = target["expr"].replace("$__rate_interval", "4s").replace("$datname", ".*").replace("$instance", ".*")
            if "$" in expression:
                raise Failed(f"{panel['title']}: {expression}")
            found = prometheus.range(expression, start, end)
            if not any(value == value for _, points in found for _, value in points):
                raise Failed(f"{panel['title']}: nothing to show of {expression}")
            for labels, points in found:
                legend = re.sub(r"\{\{(\w+)\}\}", lambda m, labels=labels: labels[m[1]], target["legendFormat"])
                series.append({"legend": legend, "points": points})
        defaults = panel["fieldConfig"]["defaults"]
        stacked = "stacking" in defaults.get("custom", {})
        shown.append({"title": panel["title"], "type": panel["type"], "unit": defaults.get("unit", ""), "max": defaults.get("max"), "stacked": stacked, "series": series})
    return shown
