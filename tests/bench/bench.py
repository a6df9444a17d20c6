#!/usr/bin/env python3
"""`make bench`: the extension beside its peers, all in one run on one private server.

    tests/bench/bench.py                                 everything, 1,000,000 users, under forty minutes
    tests/bench/bench.py --quick                         20,000 users, under five minutes
    tests/bench/bench.py --only reads,writes --users 100000 --rounds 5 --seconds 2 --library DIR

What is compared runs in interleaved rounds (A B C, B C A, …), so that a machine that gets slower
for a while does so for all. Figures of one round are compared with those of the same round; the
report shows medians, and the least and most beside them. It fails where what is compared is not
the same: other documents, a hit that was none, something that verify() finds.

Results: tests/output/bench/report.md with charts, summary.md, and every figure in results.json.
"""

import sys

# The tests' own folder comes last in the path: tests/random.py is a test, not the library.
sys.path.append(sys.path.pop(0) + "/..")

import argparse
import collections
import contextlib
import dataclasses
import datetime
import functools
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import threading
import time

from cluster import CONFIG, OUTPUT, ROOT, Cluster

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = OUTPUT / "bench"
KEY = "md5('user' || n)::uuid"  # of user n, as in ../demo/data.sql

# As in production, unlike the tests' settings: commits reach the disk. Checkpoints and vacuum
# come when we call for them, not in the middle of one peer's turn.
SETTINGS = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
    "max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off", "maintenance_work_mem": "256MB",
}  # fmt: skip


def shared_buffers(users):
    """Megabytes in which all databases fit, but no more than half of the machine's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return min(256 + users // 120, memory // 2)


class Server(Cluster):
    """The private server with the bench's settings, and what all phases do with it."""

    def __init__(self, options):
        super().__init__(options.pg, options.library)
        self.options = options
        self.settings = SETTINGS | {"shared_buffers": f"{shared_buffers(options.users)}MB"}

    def start(self, **more):
        super().start(**self.settings, **more)

    def run(self, database, text, role="app", **options):
        """Runs SQL as the app; returns its output unaligned."""
        done = self.psql(database, "-At", "-U", role, input=text, capture_output=True, **options)
        if done.returncode:
            raise RuntimeError(f"in {database}: {done.stderr.strip()}\n{text[:500]}")
        return done.stdout.strip()

    def file(self, database, path, **variables):
        """Runs an SQL file as the app."""
        self.run(database, "".join(f"\\set {k} {v}\n" for k, v in variables.items()) + path.read_text())

    def seconds(self, database, statement):
        """How long one statement takes, as psql sees it."""
        return float(re.findall(r"^Time: ([\d.]+) ms", self.run(database, f"\\timing on\n{statement}"), re.MULTILINE)[-1]) / 1000

    def watched_refresh(self, database):
        """Seconds that CALL refresh() takes, and its backend's most private memory in MB, sampled."""
        command = [self.bindir / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", "app", "-d", database]
        process = subprocess.Popen(
            [str(c) for c in command], env=self.env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        process.stdin.write("SET client_min_messages = warning;\nSELECT pg_backend_pid();\n")
        process.stdin.flush()
        status = pathlib.Path(f"/proc/{int(process.stdout.readline())}/status")
        process.stdin.write("\\timing on\nCALL profile_cache.refresh();\n")
        process.stdin.close()
        peak = 0
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may end at any moment
                if private := re.search(r"^RssAnon:\s+(\d+) kB", status.read_text(), re.MULTILINE):
                    peak = max(peak, int(private[1]) / 1024)
            time.sleep(0.005)
        printed = process.stdout.read()
        if process.returncode or not peak:
            raise RuntimeError(f"refresh in {database}, {peak} MB seen: {printed}")
        return float(re.search(r"^Time: ([\d.]+) ms", printed, re.MULTILINE)[1]) / 1000, peak

    def pgbench(self, database, script, users, mode="prepared", clients=1, role="app", latencies=False, transactions=None):
        """Transactions a second, and latencies if asked for, of one script of scripts/."""
        log = self.dir / "latencies"
        command = [
            self.bindir / "pgbench", "-n", "-M", mode, *(["-t", transactions] if transactions else ["-T", self.options.seconds]), "-c", clients, "-j", min(clients, 2),
            "-U", role, "-D", f"users={users}", "-f", HERE / "scripts" / f"{script}.sql", "--max-tries=100",
            *(["-l", f"--log-prefix={log}"] if latencies else []), database,
        ]  # fmt: skip
        done = subprocess.run([str(c) for c in command], env=self.env, text=True, capture_output=True)
        failed = re.search(r"^number of failed transactions: (\d+)", done.stdout, re.MULTILINE)
        if done.returncode or failed is None or failed[1] != "0":
            raise RuntimeError(f"pgbench, {script} in {database}:\n{done.stdout}{done.stderr}")
        result = {"tps": float(re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)[1])}
        if latencies:
            took = []
            for path in self.dir.glob("latencies.*"):
                took += [int(line.split()[2]) / 1000 for line in path.read_text().splitlines()]
                path.unlink()
            result["average ms"] = statistics.mean(took)
            cuts = statistics.quantiles(took, n=100)
            result |= {"p50 ms": cuts[49], "p95 ms": cuts[94], "p99 ms": cuts[98]}
            retried = re.search(r"^number of transactions retried: (\d+)", done.stdout, re.MULTILINE)
            result["retried"] = int(retried[1]) if retried else 0
        return result


# The databases: for a number of users one for each peer, all of the same tables and data.


@dataclasses.dataclass(frozen=True)
class Set:
    name: str
    users: int
    roles: int = 0  # of each user; 0: as in the demo's data

    def __getattr__(self, peer):
        """The database of a peer: bare, cached, plpgsql, matview."""
        return f"{self.name}_{peer}"


class Bench:
    def __init__(self, server, options):
        self.server, self.options, self.rows = server, options, []

    def say(self, text):
        print(f"[{time.monotonic() - START:5.0f} s] {text}", flush=True)

    @functools.cache
    def databases(self, name, users, roles=0, peers=("bare", "cached", "plpgsql")):
        """Makes the databases of a set when they are first asked for.

        The extension is created in all of them, since the view uses a function of it to print
        timestamps; but only in `cached` is it attached, and only there do tables have its triggers.
        """
        s, server = Set(name, users, roles), self.server
        self.say(f"databases {name}: {users:,} users" + (f", {roles} roles each" if roles else ""))
        server.sql("postgres", f"CREATE DATABASE {s.bare} OWNER app")
        server.file(s.bare, ROOT / "tests/demo/tables.sql")
        server.file(s.bare, ROOT / "tests/demo/data.sql", users=users)
        server.file(s.bare, HERE / "data.sql", roles=roles)
        server.run(s.bare, "CREATE EXTENSION profile_cache; GRANT SELECT ON user_profile TO reader")
        server.sql(s.bare, "CREATE EXTENSION pg_prewarm; VACUUM ANALYZE")

        def copy(source, target):
            server.sql("postgres", f"CREATE DATABASE {target} TEMPLATE {source} OWNER app STRATEGY file_copy")

        copy(s.bare, s.cached)
        server.run(s.cached, "SELECT profile_cache.attach(); CALL profile_cache.refresh()")
        view = server.run(s.cached, "SELECT pg_get_viewdef('profile_document')")
        server.run(s.bare, f"CREATE VIEW profile_document AS {view}")
        if "plpgsql" in peers:
            copy(s.bare, s.plpgsql)
            server.run(
                s.plpgsql,
                "ALTER TABLE user_profile ADD COLUMN cached_profile jsonb;"
                "UPDATE user_profile p SET cached_profile = d.document FROM profile_document d WHERE d.supabase_user_id = p.supabase_user_id",
            )
        for peer in ("cached", "plpgsql"):
            if peer in peers:
                server.sql(getattr(s, peer), "VACUUM ANALYZE")
        if "matview" in peers:
            copy(s.plpgsql, s.matview)
            server.run(
                s.matview,
                "CREATE MATERIALIZED VIEW profile_materialized AS SELECT supabase_user_id, document FROM profile_document;"
                "CREATE UNIQUE INDEX ON profile_materialized (supabase_user_id)",
            )
            server.sql(s.matview, "VACUUM ANALYZE")
        if "plpgsql" in peers:
            server.file(s.plpgsql, HERE / "plpgsql.sql")
        self.same_documents(s, peers)
        server.sql("postgres", "CHECKPOINT")
        for peer in peers:
            server.sql(getattr(s, peer), "SELECT sum(pg_prewarm(oid)) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i', 'm')")
        return s

    @property
    def main(self):
        return self.databases("main", self.options.users, peers=("bare", "cached", "plpgsql", "matview"))

    @property
    def small(self):
        return self.databases("small", max(self.options.users // 10, 2000))

    # What must hold for a comparison to be one

    def same_documents(self, s, peers):
        """A thousand users' documents, as every peer would give them."""
        sources = {
            "bare": "SELECT document FROM profile_document WHERE supabase_user_id = key",
            "cached": "SELECT get_profile(key)",
            "plpgsql": "SELECT cached_profile FROM user_profile WHERE supabase_user_id = key",
            "matview": "SELECT document FROM profile_materialized WHERE supabase_user_id = key",
        }
        sample = f"(SELECT n, {KEY} AS key FROM generate_series(1, {s.users}, greatest({s.users} / 1000, 1)) n) sample"
        sums = {
            peer: self.server.run(getattr(s, peer), f"SELECT count(doc) || ' documents, ' || md5(string_agg(doc::text, '' ORDER BY n)) "
                                  f"FROM {sample}, LATERAL ({sources[peer]}) d (doc)") for peer in peers
        }  # fmt: skip
        if len(set(sums.values())) != 1 or sums["bare"].startswith("0 "):
            raise RuntimeError(f"{s.name}: the peers' documents differ: {sums}")

    def served_from(self, s, source, reasons, users=None):
        """Makes sure that get_profile takes the documents of these users (a sample of all) from there."""
        users = users or f"SELECT n FROM generate_series(1, {s.users}, greatest({s.users} / 200, 1)) n"
        found = self.server.run(
            s.cached,
            f"SELECT DISTINCT e ->> 'served_from', e ->> 'reason' FROM ({users}) u (n), profile_cache.explain({KEY}) e",
        )
        if set(found.splitlines()) - {f"{source}|{reason}" for reason in reasons} or not found:
            raise RuntimeError(f"{s.cached}: documents should come from the {source} ({reasons}), but explain() says\n{found}")

    def verify(self, s):
        problems = self.server.run(s.cached, "SELECT * FROM profile_cache.verify(1000)")
        if problems:
            raise RuntimeError(f"{s.cached}: verify() found\n{problems[:2000]}")

    def unused_is_unused(self, s):
        """The column that scripts/unused.sql changes leaves the document alone, the one of scripts/subscription.sql does not."""
        written = "SELECT profile_cache_updated_at FROM user_profile WHERE id = 1;"
        found = self.server.run(
            s.cached,
            f"{written} UPDATE user_subscription SET stripe_subscription_id = 'sub_x' WHERE user_id = 1; {written}"
            f"UPDATE user_subscription SET status = 'trialing' WHERE user_id = 1; {written}",
        ).splitlines()
        if found[0] != found[1] or found[1] == found[2]:
            raise RuntimeError(f"{s.cached}: document of user 1 written {found}; before, after an unused column's change, after a used one's")

    def refresh(self, s):
        self.server.run(s.cached, "CALL profile_cache.refresh()")

    # Measuring

    def measure(self, phase, groups, rounds=None, warm=True):
        """Runs the cases in interleaved rounds, and keeps what they return. Cases of one group run one after the other."""
        groups = [group if isinstance(group, list) else [group] for group in groups]
        cases = [case for group in groups for case in group]
        values = {case.what: collections.defaultdict(list) for case in cases}
        if warm:
            for case in cases:
                case.run(warm=True)
        for turn in range(rounds or self.options.rounds):
            at = turn % len(groups)
            for case in [case for group in groups[at:] + groups[:at] for case in group]:
                for name, value in case.run(warm=False).items():
                    values[case.what][name].append(value)
        for case in cases:
            more = dict(values[case.what])
            row = {"phase": phase, "what": case.what, "unit": case.unit, "values": more.pop(case.unit), "more": more}
            self.rows.append(row | {"against": case.against, "chart": case.chart})
            self.say(f"{phase}: {case.what}: {statistics.median(row['values']):,.4g} {case.unit}")

    @property
    def few_rounds(self):
        """For what takes long, or is only a point of a curve."""
        return max(self.options.rounds // 2, 1)

    def script(self, what, database, script, users, against=None, chart=None, **options):
        """A case: a script of scripts/ run by pgbench."""

        def run(warm):
            return self.server.pgbench(database, script, users, transactions=500 if warm else None, **options)

        return Case(what, run, "tps", against or {}, chart)

    def statement(self, what, database, statement, against=None, chart=None, unit="s", times=1, before=""):
        """A case: one large statement, from tables without dead rows and just after a checkpoint."""

        def run(warm):
            self.server.sql(database, "VACUUM user_profile, user_subscription;\nCHECKPOINT")
            self.server.run(database, before)
            return {unit: self.server.seconds(database, statement) * times}

        return Case(what, run, unit, against or {}, chart)

    def refreshing(self, what, s, callers=1, against=None, chart=None, unit="s", times=1):
        """A case: CALL refresh() by so many callers at once, until all are done; and the most memory that one has taken."""

        def run(warm):
            finished = []
            threads = [threading.Thread(target=lambda: finished.append(self.server.watched_refresh(s.cached))) for _ in range(callers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if len(finished) < callers:
                raise RuntimeError(f"{s.cached}: refresh() failed")
            self.served_from(s, "cache", ["fresh"])
            return {unit: max(took for took, _ in finished) * times, "peak memory MB": max(peak for _, peak in finished)}

        return Case(what, run, unit, against or {}, chart)

    def inside(self, what, database, call, users, against=None):
        """A case: microseconds of a call inside the server, over random users, without the loop around it."""
        calls = 5000 if self.options.quick else 20000

        def run(warm):
            took = self.server.run(database, f"""
                CREATE FUNCTION pg_temp.empty(keys uuid[]) {LOOP.format(call="result := NULL")};
                CREATE FUNCTION pg_temp.call(keys uuid[]) {LOOP.format(call=call)};
                SELECT array_agg({KEY}) AS keys FROM (SELECT 1 + floor(random() * {users})::int AS n FROM generate_series(1, {calls})) u \\gset
                SELECT pg_temp.empty(:'keys') + pg_temp.call(:'keys') \\g /dev/null
                SELECT pg_temp.call(:'keys') - pg_temp.empty(:'keys');""")  # the first pass only warms up
            return {"µs": float(took)}

        return Case(what, run, "µs", against or {})


LOOP = """RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE key uuid; result jsonb; start timestamptz := clock_timestamp();
BEGIN
    FOREACH key IN ARRAY keys LOOP {call}; END LOOP;
    RETURN extract(epoch FROM clock_timestamp() - start) * 1000000 / cardinality(keys);
END $$"""


@contextlib.contextmanager
def redis(server, s):
    """A Redis of our own on a unix socket, with the same documents; a case that reads them. It dies with us."""
    socket = server.dir / "redis"
    command = ["setpriv", "--pdeathsig", "KILL", "redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"]
    with open(RESULTS / "redis.log", "w") as log:
        process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, cwd=server.dir)
    try:
        client = ["redis-cli", "-s", str(socket)]
        while subprocess.run([*client, "ping"], capture_output=True, text=True).stdout.strip() != "PONG":
            if process.poll() is not None:
                raise RuntimeError(f"redis-server ended:\n{(RESULTS / 'redis.log').read_text()}")
            time.sleep(0.05)
        # redis-benchmark reads keys of twelve digits, from 0 to less than the number of users.
        rows = subprocess.Popen(
            [server.bindir / "psql", "-X", "-At", "-F", "\t", "-d", s.matview, "-c",
             f"COPY (SELECT n % {s.users}, document FROM generate_series(1, {s.users}) n JOIN profile_materialized ON supabase_user_id = {KEY}) "
             f"TO STDOUT (FORMAT csv, DELIMITER E'\t', QUOTE E'\x01', ESCAPE E'\x01')"],
            env=server.env, stdout=subprocess.PIPE,
        )  # fmt: skip
        loader = subprocess.Popen([*client, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for line in rows.stdout:
            n, document = line.rstrip(b"\n").split(b"\t", 1)
            key = b"profile:%012d" % int(n)
            loader.stdin.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(document), document))
        loader.stdin.close()
        if rows.wait() or loader.wait():
            raise RuntimeError("Redis could not be loaded")
        expected = server.run(s.cached, "SELECT get_profile(md5('user7')::uuid)")
        got = subprocess.run([*client, "GET", f"profile:{7:012}"], capture_output=True, text=True, check=True).stdout.strip()
        if got != expected:
            raise RuntimeError(f"Redis has another document:\n{got}\n{expected}")

        def run(warm):
            requests = 1000 if warm else 20000 * server.options.seconds
            command = ["redis-benchmark", "-s", str(socket), "-c", "1", "-n", str(requests), "-r", str(s.users), "--csv", "GET", "profile:__rand_int__"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return {"tps": float(done.stdout.splitlines()[-1].split('","')[1])}

        yield Case("Redis GET", run, "tps", chart=("Reads a second, one client", "prepared", "Redis GET"))
    finally:
        process.kill()
        process.wait()


@dataclasses.dataclass
class Case:
    what: str
    run: object  # run(warm) -> {unit: figure, anything else: figure}
    unit: str
    against: dict = dataclasses.field(default_factory=dict)  # what else it is compared with: the target, or None
    chart: tuple = None  # (its title, the series, the place on the x axis)


# The phases. "" in `against` is the figure itself.


def reads(bench):
    """One profile, random users, from the cache."""
    s = bench.main
    peers = [  # what, database, script
        ("SELECT NULL", s.bare, "null"),
        ("SELECT cached_profile", s.plpgsql, "select"),
        ("get_profile", s.cached, "get_profile"),
        ("the document view", s.bare, "view"),
        ("an ORM's five queries", s.bare, "orm"),
        ("materialized view", s.matview, "matview"),
    ]
    targets = {
        "prepared": {"SELECT cached_profile": ">= 0.95", "the document view": ">= 2"},
        "simple": {"SELECT cached_profile": ">= 1.15", "the document view": ">= 5"},
    }
    bench.served_from(s, "cache", ["fresh"])
    with redis(bench.server, s) as get:
        for mode in ("prepared", "simple"):
            others = {f"{peer}, {mode}": targets[mode].get(peer) for peer, *_ in peers if peer != "get_profile"}
            others |= {get.what: None} if mode == "prepared" else {}
            cases = [
                bench.script(f"{what}, {mode}", database, script, s.users, mode=mode, against=others if what == "get_profile" else {},
                             chart=("Reads a second, one client", mode, what))
                for what, database, script in peers
            ]  # fmt: skip
            bench.measure("reads", cases + ([get] if mode == "prepared" else []))
    bench.measure("reads", [
        bench.inside("get_profile, inside the server", s.cached, "result := get_profile(key)", s.users,
                     {"": "<= 8", "SELECT cached_profile, inside the server": None, "the document view, inside the server": None}),
        bench.inside("SELECT cached_profile, inside the server", s.plpgsql,
                     "SELECT cached_profile INTO result FROM user_profile WHERE supabase_user_id = key", s.users),
        bench.inside("the document view, inside the server", s.bare,
                     "SELECT document INTO result FROM profile_document WHERE supabase_user_id = key", s.users),
    ])  # fmt: skip
    bench.served_from(s, "cache", ["fresh"])


def roles(bench):
    """Reads by a role that may only SELECT, without and with row security."""
    s, run = bench.small, bench.server.run

    def compare(how):
        bench.served_from(s, "cache", ["fresh"])
        for mode in ("prepared", "simple"):
            bench.measure("roles", [
                bench.script(f"{what}, {how}, {mode}", database, script, s.users, mode=mode, role="reader", against=against)
                for what, database, script, against in [
                    ("get_profile", s.cached, "get_profile", {f"SELECT cached_profile, {how}, {mode}": None}),
                    ("SELECT cached_profile", s.plpgsql, "select", {}),
                ]
            ], bench.few_rounds)  # fmt: skip

    compare("SELECT only")
    for database in (s.cached, s.plpgsql):
        run(database, "CREATE POLICY active ON user_profile FOR SELECT TO reader USING (is_active); ALTER TABLE user_profile ENABLE ROW LEVEL SECURITY")
    bench.refresh(s)  # DDL on the table has made everything pending
    compare("row security")
    for database in (s.cached, s.plpgsql):
        run(database, "DROP POLICY active ON user_profile; ALTER TABLE user_profile DISABLE ROW LEVEL SECURITY")
    bench.refresh(s)


def misses(bench):
    """One profile that has to be read from the view, beside reading the view with a kept plan."""
    s = bench.small

    def compare(why, reason, users=None, prefix=""):
        bench.served_from(s, "view", [reason], users)
        bench.measure("misses", [
            bench.script(f"get_profile, {why}", s.cached, f"{prefix}get_profile", s.users, against={f"the view, {why}": ">= 0.77"}),
            bench.script(f"the view, {why}", s.cached, f"{prefix}view", s.users),
        ])  # fmt: skip
        bench.served_from(s, "view", [reason], users)

    bench.server.run(s.cached, "SELECT profile_cache.invalidate_all()")
    compare("everything pending", "pending")
    bench.refresh(s)
    bench.server.run(s.cached, "UPDATE role SET permissions = permissions || '\"users.write\"' WHERE name = 'admin'")
    compare("one role's edit pending", "pending")
    bench.refresh(s)
    ending = f"user_id % 180 = 18 AND user_id <= {s.users}"
    bench.server.run(s.cached, f"UPDATE user_subscription SET current_period_end = clock_timestamp() + interval '1 second' WHERE {ending}")
    bench.server.run(s.cached, f"SELECT pg_sleep_until(max(current_period_end)) FROM user_subscription WHERE {ending}")
    compare("expired", "expired", f"SELECT generate_series(18, {s.users} - 162, 180)", "expired_")
    bench.server.run(s.cached, f"UPDATE user_subscription SET current_period_end = now() + interval '20 days' WHERE {ending}")
    bench.refresh(s)
    bench.served_from(s, "cache", ["fresh"])


def writes(bench):
    """One change of a random user, and transactions as an ORM makes them."""
    s = bench.main
    bench.unused_is_unused(s)
    changes = [  # what, script, the least share of bare's rate, by number of clients
        ("subscription", "subscription", {1: 0.6, 8: 0.55}),
        ("role", "role", {1: 0.6, 8: 0.55}),
        ("profile", "profile", {1: 0.6}),
        ("unused column", "unused", {1: 0.9}),
        ("set roles (2 statements)", "set_roles", {1: None}),
        ("sign-up (5 statements)", "sign_up", {1: None, 8: None}),
        ("five users' roles, random order", "five_roles", {1: None, 8: None}),
    ]
    for change, script, targets in changes:
        for clients, target in targets.items():
            what = f"{change}, {clients} client{'s' if clients > 1 else ''}"
            against = {f"{what}: bare": target and f">= {target}", f"{what}: plpgsql": ">= 1" if script in ("subscription", "role") else None}
            bench.measure("writes", [
                bench.script(f"{what}: {peer}", getattr(s, peer), script, s.users, clients=clients, latencies=True,
                             against=against if peer == "cached" else {},
                             chart=(f"Writes a second, {clients} client{'s' if clients > 1 else ''}", peer, change))
                for peer in ("bare", "cached", "plpgsql")
            ])  # fmt: skip
        bench.refresh(s)
        bench.verify(s)


EDIT = "UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'pro'"
ON_THE_PLAN = "user_profile p JOIN user_subscription ON user_id = p.id WHERE plan_id = 'pro'"
BARE_REFRESH = """UPDATE user_profile p SET cached_profile = d.document FROM profile_document d
    WHERE d.supabase_user_id = p.supabase_user_id AND p.id IN (SELECT user_id FROM user_subscription WHERE plan_id = 'pro')"""


def bulk(bench):
    """One statement that concerns many users: commit, and the refresh after it."""
    s, small, rounds = bench.main, bench.small, bench.few_rounds
    change = """UPDATE user_subscription SET status = CASE status WHEN 'active' THEN 'trialing' ELSE 'active' END
        WHERE user_id % 33 IN (1, 4, 7)"""
    rows = int(bench.server.run(s.bare, "SELECT count(*) FROM user_subscription WHERE user_id % 33 IN (1, 4, 7)"))
    what, chart = f"UPDATE of {rows:,} subscriptions", "UPDATE of 9 % of the users' subscriptions"
    bench.measure("bulk", [
        bench.statement(f"{what}: bare", s.bare, change, chart=(chart, "bare", "bare")),
        [
            bench.statement(f"{what}: cached", s.cached, change, {f"{what}: plpgsql": "<= 0.5", f"{what}: bare": None},
                            (chart, "cached", "cached")),
            bench.refreshing("refresh after it", s, 1, {f"{what}: plpgsql": "<= 1"}, (chart, "refresh", "refresh after it")),
        ],
        bench.statement(f"{what}: plpgsql", s.plpgsql, change, chart=(chart, "plpgsql", "plpgsql")),
    ], rounds, warm=False)  # fmt: skip

    rows, few = (int(bench.server.run(each.bare, f"SELECT count(*) FROM {ON_THE_PLAN}")) for each in (s, small))
    what, chart = f"edit of a plan that {rows:,} users have", "A plan that a third of the users have is edited"
    by_hand = f"UPDATE … FROM profile_document, {rows:,} users"
    one = f"refresh after it, {rows:,} users"
    bench.measure("bulk", [
        bench.statement(f"{what}: bare", s.bare, EDIT),
        [
            bench.statement(f"{what}: cached", s.cached, EDIT, {f"{what}: bare": None, f"edit of a plan that {few:,} users have: cached": None},
                            (chart, "cached", "commit")),
            bench.refreshing(one, s, 1, {by_hand: "<= 1.5", f"{what}: plpgsql": None}, (chart, "refresh", "refresh")),
        ],
        [
            bench.statement(f"{what}: cached, again", s.cached, EDIT),
            bench.refreshing("refresh after it by two callers at once", s, 2, {one: None}, (chart, "refresh", "refresh by two")),
        ],
        [
            bench.statement(f"edit of a plan that {few:,} users have: cached", small.cached, EDIT),
            bench.refreshing(f"refresh after it, {few:,} users", small, 1),
        ],
        [
            bench.statement(by_hand, s.matview, BARE_REFRESH, before=EDIT, chart=(chart, "bare", "UPDATE … FROM")),
            bench.statement("REFRESH MATERIALIZED VIEW CONCURRENTLY", s.matview,
                            "REFRESH MATERIALIZED VIEW CONCURRENTLY profile_materialized", chart=(chart, "matview", "materialized view")),
        ],
        bench.statement(f"{what}: plpgsql", s.plpgsql, EDIT, chart=(chart, "plpgsql", "plpgsql")),
    ], rounds, warm=False)  # fmt: skip
    bench.verify(s)


def growth(bench):
    """What a read, a write, a plan's edit and a refreshed document cost, by the number of users and of roles."""
    fewest = max(bench.options.users // 100, 1000)
    sets = [(s, "users", s.users) for s in (bench.databases("tiny", fewest), bench.small, bench.main)]
    sets += [(bench.databases(f"roles{n}", fewest, n), "roles a user", n) for n in (1, 10, 100)]
    reading, writing, editing = [], [], []
    for s, by, x in sets:
        at = f"{x:,} {by}"
        rows = int(bench.server.run(s.bare, f"SELECT count(*) FROM {ON_THE_PLAN}"))
        reading += [
            bench.script(f"get_profile, {at}", s.cached, "get_profile", s.users, chart=(f"Read, by {by}", "cached", x),
                         against={f"SELECT cached_profile, {at}": None}),
            bench.script(f"SELECT cached_profile, {at}", s.plpgsql, "select", s.users, chart=(f"Read, by {by}", "plpgsql", x)),
            bench.script(f"the document view, {at}", s.bare, "view", s.users, chart=(f"Read, by {by}", "view", x)),
        ]  # fmt: skip
        writing += [
            bench.script(f"subscription, {at}: {peer}", getattr(s, peer), "subscription", s.users, chart=(f"Subscription changed, by {by}", peer, x),
                         against={f"subscription, {at}: bare": None, f"subscription, {at}: plpgsql": None} if peer == "cached" else {})
            for peer in ("bare", "cached", "plpgsql")
        ]  # fmt: skip
        editing += [
            [
                bench.statement(f"plan's edit, {at}: cached", s.cached, EDIT, chart=(f"Commit of a plan's edit, by {by}", "cached", x),
                                unit="ms", times=1000),
                bench.refreshing(f"refresh, {at}", s, unit="µs a document", times=1e6 / rows, chart=(f"Refresh, by {by}", "refresh", x),
                                 against={f"plpgsql's trigger, {at}": None}),
            ],
            bench.statement(f"plpgsql's trigger, {at}", s.plpgsql, EDIT, unit="µs a document", times=1e6 / rows,
                            chart=(f"Refresh, by {by}", "plpgsql", x)),
        ]  # fmt: skip
    bench.measure("growth", reading, bench.few_rounds)
    bench.measure("growth", writing, bench.few_rounds)
    for s, _, _ in sets:
        bench.refresh(s)
    bench.measure("growth", editing, bench.few_rounds, warm=False)
    for s, _, _ in sets:
        bench.verify(s)


def bloat(bench):
    """What a change leaves behind: pages and WAL a change, and the share of HOT updates. Tables start compact (VACUUM FULL)."""
    s = bench.databases("bloat", max(bench.options.users // 100, 2000))
    server = bench.server
    tables = "('user_profile', 'user_subscription', 'user_role')"

    def state(database):
        found = server.sql(database, f"""
            SELECT sum(n_tup_upd) FILTER (WHERE relname = 'user_profile'), sum(n_tup_hot_upd) FILTER (WHERE relname = 'user_profile'),
                   sum(pg_relation_size(relid)), sum(pg_indexes_size(relid)), pg_current_wal_insert_lsn() - '0/0'
            FROM pg_stat_user_tables WHERE relname IN {tables}""")  # fmt: skip
        return [float(value) for value in found.split("|")]

    def changing(what, database, script, chart, against, before=""):
        def run(warm):
            if before:
                server.run(database, before)
            server.sql(database, "VACUUM FULL" if not before.endswith("-- not compact") else "VACUUM")
            server.sql(database, "VACUUM ANALYZE;\nCHECKPOINT")
            states = [state(database)]
            for _ in range(2):  # the first touches each page for the first time after the checkpoint
                server.pgbench(database, script, s.users, transactions=s.users)
                states.append(state(database))
            first, second = ([b - a for a, b in zip(*pair)] for pair in zip(states, states[1:]))
            both = [a + b for a, b in zip(first, second)]
            return {
                "WAL bytes": second[4] / s.users, "WAL bytes after a checkpoint": first[4] / s.users,
                "HOT, % of the profile's updates": 100 * both[1] / both[0] if both[0] else None,
                "table bytes": both[2] / (2 * s.users), "index bytes": both[3] / (2 * s.users),
            }  # fmt: skip

        return Case(what, run, "WAL bytes", against, chart)

    changes = ("profile", "subscription", "role")
    bench.measure("bloat", [
        changing(f"{change}: {peer}", getattr(s, peer), change, ("WAL bytes a change", peer, change),
                 {f"{change}: bare": None, f"{change}: plpgsql": None} if peer == "cached" else {})
        for change in changes for peer in ("bare", "cached", "plpgsql")
    ], rounds=1, warm=False)  # fmt: skip
    for fillfactor in (100, 90, 80, 70):
        server.run(s.cached, f"ALTER TABLE user_profile SET (fillfactor = {fillfactor}); CALL profile_cache.refresh()")
        bench.measure("bloat", [
            changing(f"{change}: cached, fillfactor {fillfactor}", s.cached, change, ("WAL bytes a change, by fillfactor", change, fillfactor), {})
            for change in changes
        ], rounds=1, warm=False)  # fmt: skip
    bench.verify(s)


PHASES = {f.__name__: f for f in (reads, roles, misses, writes, bulk, growth, bloat)}


def machine(server):
    cpu = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else os.uname().machine, "cores": os.cpu_count(),
        "memory GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{os.uname().sysname} {os.uname().release}",
        "disk": subprocess.run(["df", "--output=fstype", server.dir], text=True, capture_output=True, check=True).stdout.split()[-1],
        "PostgreSQL": server.sql("postgres", "SHOW server_version"), "date": datetime.date.today().isoformat(),
    }  # fmt: skip


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
    options.users = options.users or (20_000 if options.quick else 1_000_000)
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (1 if options.quick else 2)
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(PHASES):
        parser.error(f"no such phase: {', '.join(unknown)}")

    subprocess.run([ROOT / "tests/setup.sh", "bench"], check=True)
    if not options.library:
        subprocess.run([ROOT / "tests/setup.sh", "install", CONFIG["pg"][options.pg]["pg_config"]], check=True)
    shutil.rmtree(RESULTS, ignore_errors=True)
    RESULTS.mkdir(parents=True)
    with Server(options) as server:
        server.sql("postgres", "CREATE ROLE app LOGIN; CREATE ROLE reader LOGIN")
        bench = Bench(server, options)
        results = {"machine": machine(server), "settings": server.settings, "options": vars(options), "phases": {}, "rows": bench.rows}
        for name in wanted:
            bench.say(f"== {name}: {PHASES[name].__doc__}")
            PHASES[name](bench)
            results["phases"][name] = PHASES[name].__doc__
            (RESULTS / "results.json").write_text(json.dumps(results, indent=1))  # after each phase: a later one may fail
        if crashes := server.crashes():
            sys.exit("the server crashed:\n" + "\n".join(crashes))
    subprocess.run([ROOT / "tests/.venv-bench/bin/python", HERE / "report.py", RESULTS], check=True)
    bench.say("done")


if __name__ == "__main__":
    START = time.monotonic()
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
