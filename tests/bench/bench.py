"""`make bench`: the extension beside its peers, all in one run on one private server.

    cd tests && python3 -m bench.bench                   everything, 1,000,000 users, more than an hour
    python3 -m bench.bench --quick                       20,000 users, some minutes
    python3 -m bench.bench --only reads,writes --users 100000 --rounds 5 --seconds 2 --library DIR

What is compared runs in interleaved rounds (A B C, B C A, …), so that a machine that gets slower
for a while does so for all. Figures of one round are compared with those of the same round; the
report shows medians, and the least and most beside them. It fails where what is compared is not
the same: other documents, a hit that was none, something that verify() finds.

    peers.py     the server, the databases, Redis    scripts/      what pgbench sends
    phases.py    what is measured                    plpgsql.sql   the hand-written triggers
    warm.py      the same beside an app (app.py), and with the background worker
    report.py    results.json as Markdown and charts

Results: tests/output/bench/report.md with charts, summary.md, and every figure in results.json.
"""

import argparse
import collections
import datetime
import functools
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

from bench import peers, phases, warm
from bench.peers import KEY
from bench.phases import Case
from lib.cluster import CONFIG, OUTPUT, ROOT, TESTS, pg_config

RESULTS = OUTPUT / "bench"
PHASES = phases.PHASES | warm.PHASES

LOOP = """CREATE FUNCTION pg_temp.{name}(keys uuid[]) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE key uuid; result jsonb; start timestamptz := clock_timestamp();
BEGIN
    FOREACH key IN ARRAY keys LOOP {call}; END LOOP;
    RETURN extract(epoch FROM clock_timestamp() - start) * 1000000 / cardinality(keys);
END $$;"""


class Bench:
    """Makes cases of what phases.py lists, runs them, and keeps the figures."""

    def __init__(self, server, options):
        self.server, self.options, self.rows, self.start = server, options, [], time.monotonic()
        self.curves, self.notes = [], []
        self.few_rounds = max(options.rounds - 2, 1)  # for what takes long, or is only a point of a curve
        self.log = RESULTS / "redis.log"

    def say(self, text):
        print(f"[{time.monotonic() - self.start:5.0f} s] {text}", flush=True)

    def curve(self, phase, title, series, points):
        """What was measured over time: (seconds, figure). The last of a series is the one that is drawn."""
        self.curves.append({"phase": phase, "title": title, "series": series, "points": points})

    def note(self, phase, text):
        """What the report has to say of a phase."""
        self.say(f"{phase}: {text}")
        self.notes.append({"phase": phase, "text": text})

    @functools.cache
    def databases(self, name, users, roles=0, **options):
        self.say(f"databases {name}: {users:,} users" + (f" with {roles} roles" if roles else ""))
        return peers.databases(self.server, name, users, roles, **options)

    @property
    def main(self):
        return self.databases("main", self.options.users, peers=("bare", "cached", "plpgsql", "matview"))

    @property
    def small(self):
        return self.databases("small", max(self.options.users // 10, 2000))

    @property
    def tiny(self):
        return self.databases("tiny", max(self.options.users // 100, 1000))

    def measure(self, phase, groups, rounds=None, warm=True):
        """Runs the cases in interleaved rounds. A group's cases run one after the other; a case may stand for its group."""
        groups = [group if isinstance(group, list) else [group] for group in groups]
        cases = [case for group in groups for case in group]
        values = {case.what: collections.defaultdict(list) for case in cases}
        if warm:
            for case in cases:
                case.run(True)
        for turn in range(rounds or self.options.rounds):
            at = turn % len(groups)
            for case in [case for group in groups[at:] + groups[:at] for case in group]:
                for name, value in case.run(False).items():
                    values[case.what][name].append(value)
        for case in cases:
            more = dict(values[case.what])
            row = {"phase": phase, "what": case.what, "unit": case.unit, "values": more.pop(case.unit), "more": more}
            self.rows.append(row | {"against": case.against or {}, "chart": case.chart})
            self.say(f"{phase}: {case.what}: {statistics.median(row['values']):,.4g} {case.unit}")

    # Kinds of cases

    def script(self, what, database, script, users, against=None, chart=None, **options):
        """A script of scripts/, run by pgbench for a round."""

        def run(warm):
            return self.server.pgbench(database, script, users, transactions=500 if warm else None, **options)

        return Case(what, run, "tps", against, chart)

    def redis(self, what, get, chart):
        return Case(what, lambda warm: {"tps": get(1000 if warm else 20000 * self.options.seconds)}, "tps", chart=chart)

    def inside(self, what, database, call, users, against=None):
        """A call inside the server, over random users, without the loop around it."""
        calls = 5000 if self.options.quick else 20000
        random = f"SELECT 1 + floor(random() * {users})::int AS n FROM generate_series(1, {calls})"

        def run(warm):
            took = self.server.run(database, f"""
                {LOOP.format(name="empty", call="result := NULL")}
                {LOOP.format(name="loop", call=call)}
                SELECT array_agg({KEY}) AS keys FROM ({random}) u \\gset
                SELECT pg_temp.empty(:'keys') + pg_temp.loop(:'keys') \\g /dev/null
                SELECT pg_temp.loop(:'keys') - pg_temp.empty(:'keys');""")  # the first pass only warms up
            return {"µs": float(took)}

        return Case(what, run, "µs", against)

    def statement(self, what, database, statement, against=None, chart=None, unit="s", times=1, before=""):
        """One large statement, on tables without dead rows and just after a checkpoint."""

        def run(warm):
            self.server.sql(database, "VACUUM user_profile, user_subscription;\nCHECKPOINT")
            self.server.run(database, before)
            return {unit: self.server.seconds(database, statement) * times}

        return Case(what, run, unit, against, chart)

    def sign_ups(self, what, s, peer, people, against=None, chart=None):
        """COPY of so many people with all they have, in one transaction, just after a checkpoint. They go again, so that each round is the same."""
        database, files = getattr(s, peer), [self.server.dir / f"{name}.csv" for name in ("profiles", "subscriptions", "roles")]
        numbers = f"generate_series({s.users} + 1, {s.users} + {people}) AS n"
        tables = {
            "user_profile (id, supabase_user_id, email, full_name, avatar_url, company, job_title, timezone, language, is_active, is_verified, onboarding_completed, preferences, created_at, updated_at)":
                f"SELECT n, {KEY}, 'user' || n || '@example.com', 'New User', '', '', '', 'Europe/Berlin', 'de', true, false, false, '{{}}', now(), now() FROM {numbers}",
            "user_subscription (user_id, plan_id, status, current_period_start, current_period_end, stripe_subscription_id)":
                f"SELECT n, 'basic', 'trialing', now(), now() + interval '30 days', 'sub_new_' || n FROM {numbers}",
            "user_role (user_id, role_id, assigned_at)": f"SELECT n, role, now() FROM {numbers}, generate_series(1, 2) AS role",
        }  # fmt: skip

        def run(warm):
            for file, query in zip(files, tables.values()):
                file.write_text(self.server.run(database, f"COPY ({query}) TO STDOUT") + "\n")
            self.server.sql(database, "VACUUM user_profile, user_subscription, user_role;\nCHECKPOINT")
            copies = "".join(f"\\copy {table} FROM '{file}'\n" for table, file in zip(tables, files))
            began = time.monotonic()
            self.server.run(database, f"BEGIN;\n{copies}COMMIT;")
            took = time.monotonic() - began
            peers.sign_offs(self.server, database, s.users)
            if peer == "cached":
                self.server.refresh(database)
            return {"s": took}

        return Case(what, run, "s", against, chart)

    def ddl(self, what, database, statement, first, against=None):
        """Short DDL, the median of several: one after the other in a session, or each the first of its own."""
        times = 10 if self.options.quick else 30

        def took(text):
            return sum(float(ms) for ms in re.findall(r"^Time: ([\d.]+) ms", self.server.run(database, f"SET synchronous_commit = off;\n{text}"), re.MULTILINE))

        def run(warm):
            if first:
                return {"ms": statistics.median(took(f"\\timing on\n{statement}") for _ in range(times))}
            several = f"{statement}\n" * times
            return {"ms": took(f"{statement}\n\\timing on\n{several}") / times}

        return Case(what, run, "ms", against)

    def refresh(self, what, s, callers=1, against=None, chart=None, unit="s", times=1):
        """CALL refresh() by so many callers at once, until all are done; and the most memory that one has taken."""

        def run(warm):
            finished = []
            threads = [threading.Thread(target=lambda: finished.append(self.server.refresh(s.cached))) for _ in range(callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if len(finished) < callers:
                raise RuntimeError(f"{s.cached}: refresh() failed")
            peers.served_from(self.server, s, "cache", "fresh")
            return {unit: max(took for took, _ in finished) * times, "peak memory MB": max(peak for _, peak in finished)}

        return Case(what, run, unit, against, chart)


def machine(server):
    cpu = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    disk = subprocess.run(["df", "--output=fstype", server.dir], text=True, capture_output=True, check=True).stdout.split()[-1]
    return {
        "cpu": cpu[1] if cpu else os.uname().machine, "cores": os.cpu_count(), "disk": disk,
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB",
        "system": f"{os.uname().sysname} {os.uname().release}",
        "PostgreSQL": server.sql("postgres", "SHOW server_version").split()[0], "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def prepare(target, options, folder):
    """What tests/setup.sh has for this bench, the extension where no library is given, and an empty folder for the results."""
    subprocess.run([ROOT / "tests/setup.sh", target], check=True)
    if not options.library:
        subprocess.run([ROOT / "tests/setup.sh", "install", pg_config(options.pg)], check=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pg", default="15", choices=CONFIG["pg"], help="PostgreSQL's major version")
    parser.add_argument("--quick", action="store_true", help="fewer users, shorter rounds")
    parser.add_argument("--only", default=",".join(PHASES), help="phases, by comma: " + ", ".join(PHASES))
    parser.add_argument("--users", type=int, help="in the main databases (1,000,000; quick: 20,000)")
    parser.add_argument("--rounds", type=int, help="how often each case is measured (5; quick: 3)")
    parser.add_argument("--seconds", type=int, help="how long a round of pgbench is (2; quick: 1)")
    parser.add_argument("--library", help="a folder with another profile_cache.so to measure; nothing is installed then")
    options = parser.parse_args()
    for name, full, quick in [("users", 1_000_000, 20_000), ("rounds", 5, 3), ("seconds", 2, 1)]:
        setattr(options, name, getattr(options, name) or (quick if options.quick else full))
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(PHASES):
        parser.error(f"no such phase: {', '.join(unknown)}")
    if options.users < 2000:
        parser.error("--users: at least 2000")

    prepare("bench", options, RESULTS)
    with peers.Server(options.pg, options.library, options.users, options.seconds) as server:
        server.sql("postgres", "CREATE ROLE app LOGIN; CREATE ROLE reader LOGIN")
        bench = Bench(server, options)
        results = {"machine": machine(server), "settings": server.settings, "options": vars(options), "phases": {}, "rows": bench.rows}
        results |= {"curves": bench.curves, "notes": bench.notes}
        for name in wanted:
            results["phases"][name] = " ".join(PHASES[name].__doc__.split())
            bench.say(f"== {name}: {results['phases'][name]}")
            try:
                PHASES[name](bench)
            finally:  # what has been measured outlives a failure
                (RESULTS / "results.json").write_text(json.dumps(results, indent=1))
                (RESULTS / "server.log").write_text(server.log())
        if crashes := server.crashes():
            sys.exit("the server crashed:\n" + "\n".join(crashes))
        bench.say("done")
    subprocess.run([TESTS / ".venv-bench/bin/python", "-m", "bench.report", RESULTS], cwd=TESTS, check=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
