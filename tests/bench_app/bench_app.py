"""`make bench-app`: the four variants of the app in tests/app beside each other, through a real server.

    cd tests && python3 -m bench_app.bench_app                   everything, nine minutes
    python3 -m bench_app.bench_app --quick                       two and a half
    python3 -m bench_app.bench_app --users 10000 --rounds 7 --seconds 4 --library DIR

Rounds are interleaved as in ../bench/bench.py, which this is built on: ratios are of figures of one round. It fails where
variants answer differently (but for Redis, whose stale answers are counted), a request fails, or verify() finds something.

    variants.py  the app as the servers run it           inside.py    its users, calls without a server, writes
    load.lua     what wrk asks for                       nothing.py   what the server costs by itself
    charts.py    results.json as Markdown and charts

Results: tests/output/bench-app/report.md with charts, summary.md, and every figure in results.json.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import secrets
import socket
import subprocess
import sys

from bench.bench import Bench, machine, prepare
from bench.phases import Case
from lib.cluster import CONFIG, OUTPUT, ROOT, TESTS, Cluster
from lib.pgbouncer import pgbouncer
from lib.redis_server import Redis

HERE = pathlib.Path(__file__).resolve().parent
APP = ROOT / "tests/app"
PYTHON = APP / ".venv/bin/python"
RESULTS = OUTPUT / "bench-app"
VARIANTS = ["as_it_was", "prefetched", "redis", "redis_text", "get_profile_rest", "get_profile"]
CONNECTIONS = 8
PAUSE = 0.05  # seconds between writes
TARGETS = {"get_profile": {"as_it_was": ">= 10", "redis": ">= 1", "redis_text": None}, "get_profile_rest": {"as_it_was": None, "redis": None}}

# The same for all: a process for each of two cores, each with a port of its own, so that the load generator gives both the
# same share; as many threads as it has connections there, so that what is measured is the app and not a queue (sync workers
# would close each connection); and the app's own settings keep a database connection for each thread.
PROCESSES = 2
GUNICORN = ["--worker-class=gthread", "--workers=1", f"--threads={CONNECTIONS // PROCESSES}", "--keep-alive=30", "--log-level=warning"]


class Django:
    """A process inside the app (inside.py)."""

    def __init__(self, env):
        command = [PYTHON, HERE / "inside.py"]
        self.process = subprocess.Popen(command, env=env, cwd=APP, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def begin(self, name, *arguments):
        print(json.dumps([name, *arguments]), file=self.process.stdin, flush=True)

    def finish(self):
        if not (answer := self.process.stdout.readline()):
            raise RuntimeError(f"inside.py ended with {self.process.wait()}")
        return json.loads(answer)

    def ask(self, name, *arguments):
        self.begin(name, *arguments)
        return self.finish()


class Server:
    """Gunicorns with the app as it answers with one variant, or with nothing.py."""

    def __init__(self, stack, name, env):
        self.name, self.ports, self.processes = name, [], []
        env = env | {"PROFILE_SOURCE": name, "PYTHONPATH": f"{APP}:{HERE}"}
        log = stack.enter_context((RESULTS / "gunicorn.log").open("a"))
        stack.callback(self.stop)
        for _ in range(PROCESSES):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            command = ["setpriv", "--pdeathsig", "TERM", APP / ".venv/bin/gunicorn", *GUNICORN, f"--bind=fd://{listening.fileno()}"]
            command.append("nothing:application" if name == "nothing" else "variants:application")
            self.ports.append(str(listening.getsockname()[1]))
            self.processes.append(subprocess.Popen(command, env=env, cwd=APP, pass_fds=[listening.fileno()], stdout=log, stderr=log))

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()

    def cpu_seconds(self):
        """What its workers have taken so far."""
        parents = [f"/proc/{process.pid}/task/{process.pid}/children" for process in self.processes]
        workers = [pid for parent in parents for pid in pathlib.Path(parent).read_text().split()]
        times = [pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in workers]
        return sum(int(ticks) for both in times for ticks in both) / os.sysconf("SC_CLK_TCK")

    def load(self, tokens, seconds):
        env = {"TOKENS": str(tokens), "PORTS": " ".join(self.ports), "SEED": str(random.randrange(2**31)), "PATH": os.environ["PATH"]}
        before = self.cpu_seconds()
        options = [f"--threads={PROCESSES}", f"--connections={CONNECTIONS}", f"--duration={seconds}s", "--script", HERE / "load.lua"]
        done = subprocess.run(["wrk", *options, f"http://127.0.0.1:{self.ports[0]}"], env=env, text=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"wrk, {self.name}: {done.stdout}{done.stderr}")
        figures = json.loads(done.stdout.splitlines()[-1])
        if figures["failed"] or not figures["requests"]:
            raise RuntimeError(f"{self.name}: {figures['failed']} of {figures['requests']} requests failed (see {RESULTS}/gunicorn.log)")
        return figures | {"CPU ms": (self.cpu_seconds() - before) * 1000 / figures["requests"]}

    def answers(self, tokens, port=None):
        """Bodies, and how many queries each took."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(port or self.ports[0]), timeout=30)) as connection:
            for token in tokens:
                headers = {"Authorization": f"Bearer {token}", "X-Count-Queries": "yes"}
                connection.request("GET", "/api/v1/auth/profile/", headers=headers)
                response = connection.getresponse()
                body = response.read().decode()
                if response.status != 200:
                    raise RuntimeError(f"{self.name}: {response.status} {body[:200]}")
                yield body, int(response.headers.get("X-Queries", 0))

    def wait(self, token):
        for port in self.ports:
            list(self.answers([token], port))


def redis_sets(redis):
    """How often something was put into Redis so far, by its own count: once for each miss, and by no one else."""
    info = subprocess.run(["redis-cli", "-s", str(redis.socket), "info", "commandstats"], capture_output=True, text=True, check=True).stdout
    counted = re.search(r"^cmdstat_set:calls=(\d+)", info, re.MULTILINE)
    return int(counted[1]) if counted else 0


def without_server(bench, app):
    """The app called in its own process, once after the other: middleware, URL, token, view, database, response; no HTTP
    and no server."""

    def case(variant, what=None, before=None, after=None, row_security=False, targets=None):
        def run(warm):
            if warm and variant.startswith("redis"):
                app.ask("warm", variant)
            if before:
                app.ask(before)
            figures = app.ask("calls", variant, 100 if warm else bench.options.calls, row_security)
            if after:
                app.ask(after)
            return figures

        # Milliseconds, so the other way round.
        against = {other: target and f"<= {1 / float(target.split()[1]):g}" for other, target in (targets or {}).items()}
        return Case(what or variant, run, "ms", against, None if what else ("Milliseconds of one call, without a server", "", variant))

    cases = [case(variant, targets=TARGETS.get(variant)) for variant in VARIANTS]
    cases.append(case("get_profile", "get_profile, all pending", "invalidate_all", "refresh", targets={"as_it_was": None}))
    for variant in ("as_it_was", "prefetched", "get_profile"):
        targets = {"as_it_was, row security": ">= 10"} if variant == "get_profile" else None
        cases.append(case(variant, f"{variant}, row security", row_security=True, targets=targets))
    bench.measure("without a server", cases)


def through(bench, phase, chart, app, writer, redis, env, tokens):
    """Requests of random users through a server, while a writer changes profiles."""
    everyone = tokens.read_text().split()

    def case(server):
        def run(warm):
            if warm:
                server.wait(everyone[0])
                server.load(tokens, 1)
                return
            if server.name.startswith("redis"):  # has lost, while others had their turn, what it would have got again meanwhile
                app.ask("warm", server.name)
            sets = redis_sets(redis)
            figures = server.load(tokens, bench.options.seconds)
            rate = None
            if server.name.startswith("redis"):
                rate = 100 - (redis_sets(redis) - sets) * 100 / figures["requests"]
            elif server.name.startswith("get_profile"):
                rate = app.ask("from_cache", 1000)
            latencies = {name: figures[name] for name in ("p50 ms", "p95 ms", "p99 ms", "CPU ms")}
            return {"requests/s": figures["requests"] / figures["seconds"]} | latencies | {"hits %": rate}

        shown = ("Requests a second", chart, server.name) if server.name != "nothing" else None
        return Case(server.name, run, "requests/s", TARGETS.get(server.name), shown)

    with contextlib.ExitStack() as stack:
        servers = [Server(stack, name, env) for name in [*VARIANTS, "nothing"]]
        writer.begin("write", PAUSE)
        bench.measure(phase, [case(server) for server in servers])
        writer.begin("stop")
        checks = writer.finish()
        if checks["writes"] < bench.options.rounds:
            raise RuntimeError(f"{phase}: only {checks['writes']} writes while it ran")

        servers = {server.name: server for server in servers}
        for variant in VARIANTS:
            queries = [queries for _, queries in servers[variant].answers(random.sample(everyone, 500))]
            checks[f"queries, {variant}"] = sum(queries) / len(queries)
        changed = everyone[:1000:2]  # half of those whom the writer changes
        checks["asked, afterwards"] = len(changed)
        expected = [body for body, _ in servers["as_it_was"].answers(changed)]
        for variant in VARIANTS[1:]:
            checks[f"stale afterwards, {variant}"] = app.ask("differing", expected, [body for body, _ in servers[variant].answers(changed)])
    bench.say(f"{phase}: {checks}")
    return checks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pg", default="15", choices=CONFIG["pg"], help="PostgreSQL's major version")
    parser.add_argument("--quick", action="store_true", help="fewer users, fewer and shorter rounds")
    parser.add_argument("--users", type=int, help="how many (5000; quick: 2000)")
    parser.add_argument("--rounds", type=int, help="how often each variant is measured (5; quick: 3)")
    parser.add_argument("--seconds", type=int, help="how long a round of load is (4; quick: 1)")
    parser.add_argument("--library", help="a folder with another profile_cache.so to measure; nothing is installed then")
    options = parser.parse_args()
    for name, full, quick in [("users", 5000, 2000), ("rounds", 5, 3), ("seconds", 4, 1)]:
        setattr(options, name, getattr(options, name) or (quick if options.quick else full))
    options.calls = 300 if options.quick else 1000
    if options.users < 2000:
        parser.error("--users: at least 2000")

    prepare("bench-app", options, RESULTS)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Cluster(options.pg, options.library))
        redis = stack.enter_context(Redis(server.dir))
        server.sql("postgres", "CREATE ROLE authenticated; CREATE ROLE app LOGIN IN ROLE authenticated; CREATE DATABASE app OWNER app")
        env = server.env | {
            "PGUSER": "app", "PGDATABASE": "app", "REDIS_URL": redis.url, "DJANGO_SETTINGS_MODULE": "backend.settings",
            "PYTHONPATH": f"{APP}:{HERE}", "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SECRET_KEY": secrets.token_hex(32), "SUPABASE_JWT_SECRET": secrets.token_hex(32),
        }  # fmt: skip
        subprocess.run([PYTHON, "manage.py", "migrate", "--verbosity=0"], env=env, cwd=APP, check=True)
        bench = Bench(server, options)
        bench.say(f"{options.users:,} users")
        app, writer, tokens = Django(env), Django(env), RESULTS / "tokens"
        app.ask("users", options.users)
        app.ask("write_tokens", str(tokens))
        server.sql("app", "VACUUM ANALYZE")

        results = {"machine": machine(server), "gunicorn": GUNICORN, "connections": CONNECTIONS, "pause": PAUSE}
        results |= {"options": vars(options), "rows": bench.rows, "checks": {}, "verify": None}
        try:
            without_server(bench, app)
            results["checks"]["server"] = through(bench, "server", "direct", app, writer, redis, env, tokens)
            with pgbouncer(server, size=CONNECTIONS) as pooled:
                results["checks"]["pgbouncer"] = through(bench, "pgbouncer", "PgBouncer", app, writer, redis, env | pooled, tokens)
            results["verify"] = app.ask("verify")
        finally:  # what has been measured outlives a failure
            (RESULTS / "results.json").write_text(json.dumps(results, indent=1))
            (RESULTS / "server.log").write_text(server.log())
            tokens.unlink(missing_ok=True)
        if crashes := server.crashes():
            sys.exit("the server crashed:\n" + "\n".join(crashes))
        bench.say("done")
    subprocess.run([TESTS / ".venv-bench/bin/python", "-m", "bench_app.charts", RESULTS], cwd=TESTS, check=True)
    wrong = [name for checks in results["checks"].values() for name, count in checks.items()
             if name.startswith("stale") and "redis" not in name and count]  # fmt: skip
    if wrong or results["verify"]:
        sys.exit(f"wrong answers: {wrong}; verify(): {results['verify'][:20]}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
