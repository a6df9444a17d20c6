"""What of `make bench` is about a cache that is to be warm: phases of phases.py that need an app beside them (app.py), or the
background worker.

The worker runs where the server has preloaded the library, for the databases that `profile_cache.databases` names. So these
phases restart the server once with the library preloaded; each measurement says for which database it wants the worker, if for
any. A library without it is measured all the same, and the report says what was left out.
"""

import contextlib
import json
import pathlib
import random
import subprocess
import threading
import time

from bench.peers import HERE, served_from, verified
from bench.phases import EDIT, Case, subscriptions
from lib.cluster import TESTS
from lib.filled import Session
from lib.redis_server import Redis

PYTHON = TESTS / ".venv-bench/bin/python"
PENDING = "SELECT count(*) FROM profile_cache.pending"
UNCACHED = "SELECT count(*) FROM (SELECT FROM user_profile WHERE cached_profile_epoch IS NULL LIMIT 1) AS u"
# So many active subscriptions end, one a second; and none does.
ENDING = """UPDATE user_subscription AS s SET current_period_end = now() + ({first} + e.n) * interval '1 second'
  FROM (SELECT id, row_number() OVER () AS n FROM (SELECT id FROM user_subscription WHERE status = 'active' ORDER BY random() LIMIT {n}) AS u) AS e
 WHERE s.id = e.id"""
NOT_ENDING = "UPDATE user_subscription SET current_period_end = now() + interval '20 days' WHERE current_period_end < now() + interval '1 day'"
PATIENCE = 600  # seconds, with a refresh that does not come to its end


def cpu(pid):
    """Microseconds of CPU that a process has had."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


# The server, with and without the worker


def preload(bench, phase):
    """Has the server preload the library, once, and says whether there is a worker in it."""
    server = bench.server
    if server.sql("postgres", "SHOW shared_preload_libraries") != "profile_cache":
        server.stop("fast")
        server.start(shared_preload_libraries="profile_cache")
    found = "SELECT count(*) FROM pg_settings WHERE name = 'profile_cache.databases'"
    if server.sql("postgres", found) == "0":
        bench.note(phase, "this library has no background worker: what is with it is left out")
        return False
    return True


def warmed(bench, database):
    """All of the public tables and indexes in memory, as before a restart."""
    relations = "FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i', 'm')"
    bench.server.sql(database, f"SELECT sum(pg_prewarm(oid)) {relations}")


def settings(server, **values):
    """Sets what the worker reads, now. None: as it was at first."""
    for name, value in values.items():
        change = "RESET" if value is None else "SET"
        server.sql("postgres", f"ALTER SYSTEM {change} profile_cache.{name}" + ("" if value is None else f" = '{value}'"))
    server.sql("postgres", "SELECT pg_reload_conf()")
    time.sleep(0.5)  # until all have heard of it


@contextlib.contextmanager
def working_for(server, *databases, **values):
    """With the worker for these databases."""
    if not databases:
        yield
        return
    settings(server, databases=", ".join(databases), **values)
    try:
        yield
    finally:
        settings(server, **dict.fromkeys(["databases", *values]))
        deadline = time.monotonic() + 10
        workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'profile_cache worker'"
        while server.sql("postgres", workers) != "0" and time.monotonic() < deadline:
            time.sleep(0.1)


def drained(server, database):
    """Waits until nothing is pending, and every document is there."""
    deadline = time.monotonic() + PATIENCE
    for left in (PENDING, UNCACHED):
        while server.sql(database, left) != "0":
            if time.monotonic() > deadline:
                raise RuntimeError(f"{database}: not refreshed after {PATIENCE} s")
            time.sleep(0.02)


# The app


class App:
    """app.py against a database, connected and waiting."""

    def __init__(self, server, database, users, seconds, **more):
        options = {
            "host": server.env["PGHOST"], "port": server.env["PGPORT"], "user": "app", "database": database, "users": users,
            "seconds": seconds, "source": "get_profile", "reads": 400, "writes": 0, "edit_every": 0, "zipf": False, "until": 0,
            "counted_from": 0, "bucket": 0.5, "redis": None, "seed": random.randrange(2**31),
        } | more  # fmt: skip
        command = ["setpriv", "--pdeathsig", "TERM", PYTHON, "-m", "bench.app", json.dumps(options)]
        self.process = subprocess.Popen(command, cwd=TESTS, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        if self.process.stdout.readline() != "ready\n":
            self.process.kill()
            raise RuntimeError(f"app.py: {self.process.communicate()[1]}")
        return self

    def begin(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self):
        printed, said = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"app.py: {said}")
        figures = json.loads(printed)
        if figures["failed"]:
            raise RuntimeError(f"the app's statements failed, {figures['failed']} of them: {figures['failures']}")
        return figures

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate()


def every(seconds, over, act):
    """A thread that acts so often, at first after that time, until it is over."""

    def run():
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


# Phases


def warm(bench):
    """Who is served from the cache, and who is served what is no longer so: readers beside forty changes a second (logins, roles,
    subscriptions), a plan edited every twenty seconds (quick: five), and a subscription that ends every second, as was known long
    before. Each answer is compared with the view: for `get_profile` and the triggers in the same snapshot; for Redis, stale is what is the
    document neither before the GET nor after it. `cron`: `CALL refresh()` once a minute (quick: every 15 s). Redis: signals delete a
    user's copy after each commit, and those of all who have the plan; copies live 15 minutes. Counted from the first refresh by cron
    on, for the others from the second edit."""
    server, quick = bench.server, bench.options.quick
    s, there = life_size(bench), preload(bench, "warm")
    edits, cron, seconds = (5, 15, 30) if quick else (20, 60, 120)
    sources = {"with the worker": s.cached, "refresh by cron": s.cached, "Redis with signals": s.bare, "plpgsql row triggers": s.plpgsql}
    for database in set(sources.values()):
        warmed(bench, database)
    figures = {}

    def run(how):
        database, over = sources[how], threading.Event()
        source = {s.cached: "get_profile", s.bare: "redis", s.plpgsql: "column"}[database]
        first = cron if how == "refresh by cron" else edits
        # Filling Redis takes a while.
        server.run(database, ENDING.format(first=20, n=first + seconds))
        server.sql(database, "VACUUM")
        with contextlib.ExitStack() as stack:
            redis = stack.enter_context(Redis(server.dir)).socket if source == "redis" else None
            if source == "get_profile":
                server.refresh(database)
            if how == "with the worker":
                stack.enter_context(working_for(server, database))
            app = App(
                server, database, s.users, first + seconds, source=source, redis=str(redis), writes=40, edit_every=edits, counted_from=first, bucket=1
            )
            stack.enter_context(app)
            # Ended before the app is.
            stack.callback(over.set)
            app.begin()
            refreshing = every(cron, over, lambda: server.refresh(database)) if how == "refresh by cron" else None
            figures[how] = app.end()
            bench.curve("warm", "Reads that are served from the cache, a second after the other, %", how, figures[how]["buckets"])
            over.set()
            if refreshing:
                refreshing.join()
        server.run(database, NOT_ENDING)
        if source == "get_profile":
            server.refresh(database)
            verified(server, s)
            if figures[how]["stale ever"]:
                raise RuntimeError(f"{how}: {figures[how]['stale ever']} answers were stale")

    title = "Reads that are served from the cache"

    def group(how):
        """What one run has shown, in two rows."""

        def measured(warm):
            run(how)
            more = {name: figures[how][name] for name in ("reads", "stale", "writes", "write p50 ms", "write p99 ms", "edit s")}
            return {"% hits": figures[how]["hits %"]} | more

        target, of_them = ({"": limit if how == "with the worker" else None} for limit in (">= 95", ">= 99"))
        return [
            Case(f"all users, {how}", measured, "% hits", target, (title, "all users", how)),
            Case(f"whom no edit concerned, {how}", lambda warm: {"% hits": figures[how]["unconcerned"]}, "% hits", of_them,
                 (title, "whom no edit concerned", how)),
        ]  # fmt: skip

    hows = [how for how in sources if there or how != "with the worker"]
    bench.measure("warm", [group(how) for how in hows], 1 if quick else min(2, bench.options.rounds), warm=False)


def life_size(bench):
    """The databases of these phases: 100,000 users, or a tenth of it."""
    if bench.options.quick:
        return bench.databases("warm", 10_000)
    return bench.small if bench.small.users == 100_000 else bench.databases("warm", 100_000)


def life(bench):
    """How long it takes until 95 and 99 of a hundred reads are hits again (in half a second of them, from then on), while users are
    read as in an app: the k-th most wanted is read for 1 / k as often as the first. After attach() as in a migration, the restore of
    a dump, an import of as many users again, and invalidate_all(); with the worker, and with one `CALL refresh()` that begins at
    that moment."""
    server, s, there = bench.server, life_size(bench), preload(bench, "life")
    warmed(bench, s.cached)
    restored = "restored"
    size = {name: s.users for name in ("attach", "restore", "invalidate_all")} | {"import": 2 * s.users}
    dump = server.dir / "dump"

    def prepare(event):
        if event == "attach":
            server.run(s.cached, "SELECT profile_cache.detach()")
        elif event == "restore":
            server.sql("postgres", f"DROP DATABASE IF EXISTS {restored} WITH (FORCE)")
            server.run_server_command(server.bindir / "pg_dump", "-Fc", "-Z0", "-f", dump, s.cached)
            server.sql("postgres", f"CREATE DATABASE {restored} OWNER app TEMPLATE template0")
            server.run_server_command(server.bindir / "pg_restore", "-d", restored, dump)
            server.sql(restored, "ANALYZE")

    def happen(event):
        if event == "attach":
            server.run(s.cached, "SELECT profile_cache.attach()")
        elif event == "import":
            server.file(s.cached, HERE / "import.sql", users=s.users)
        elif event == "invalidate_all":
            server.run(s.cached, "SELECT profile_cache.invalidate_all()")

    def undo(event):
        if event == "import":
            for table, column in (("user_role", "user_id"), ("user_subscription", "user_id"), ("user_profile", "id")):
                server.run(s.cached, f"DELETE FROM {table} WHERE {column} > {s.users}")
        elif event == "restore":
            server.sql("postgres", f"DROP DATABASE {restored} WITH (FORCE)")
            dump.unlink()
        server.sql(s.cached, "VACUUM")
        server.refresh(s.cached)

    until = {}

    def run(event, how):
        database = restored if event == "restore" else s.cached
        prepare(event)
        with contextlib.ExitStack() as stack:
            if how == "the worker" and event != "restore":
                stack.enter_context(working_for(server, database))
            app = App(server, database, size[event], PATIENCE, zipf=True, until=0.995)
            stack.enter_context(app)
            happen(event)
            app.begin()
            if how == "the worker" and event == "restore":
                # Only now is it told of it: the name was another database's.
                stack.enter_context(working_for(server, database))
            if how == "refresh()":
                # Whoever restores a dump owns the extension.
                server.refresh(database, "postgres" if event == "restore" else "app")
            figures = app.end()
        if figures["stale ever"]:
            raise RuntimeError(f"after {event}: {figures['stale ever']} answers were stale")
        bench.curve("life", f"Hits after {event}, %", how, figures["buckets"])
        for limit in (95, 99):
            below = [at for at, share in figures["buckets"] if share < limit]
            until[limit] = max(below, default=0)
        undo(event)

    def group(event, how):
        def measured(warm):
            run(event, how)
            return {"s": until[95]}

        return [
            Case(f"{event}: 95 % hits with {how}", measured, "s", {"": None}),
            Case(f"{event}: 99 % hits with {how}", lambda warm: {"s": until[99]}, "s", {"": None}),
        ]

    hows = ["the worker", "refresh()"] if there else ["refresh()"]
    for event in size:
        bench.measure("life", [group(event, how) for how in hows], 1 if bench.options.quick else bench.few_rounds, warm=False)
    verified(server, s)


def callers(bench):
    """Refresh by one and by two callers at once, and by the worker: all documents anew, and from the commit of a plan's edit until
    the last document that shows it is fresh."""
    server, s, there = bench.server, life_size(bench), preload(bench, "callers")
    sets = [s] if bench.options.quick else [s, bench.main]
    for each in sets:
        warmed(bench, each.cached)

    def together(database, n):
        """So many callers at once: until the last one is done."""
        failed = []

        def call():
            try:
                server.refresh(database)
            except RuntimeError as error:
                failed.append(error)

        threads = [threading.Thread(target=call) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    def until_fresh(each, change, how):
        """Seconds from the change's commit until nothing is pending and all is cached."""
        server.sql(each.cached, "VACUUM user_profile, user_subscription;\nCHECKPOINT")
        workers = how.get("workers", 0)
        with working_for(server, *([each.cached] if workers else []), **({"refresh_workers": workers} if workers > 1 else {})):
            server.run(each.cached, change)
            start = time.monotonic()
            if workers:
                drained(server, each.cached)
            else:
                together(each.cached, how["callers"])
            took = time.monotonic() - start
        served_from(server, each, "cache", "fresh")
        return took

    hows = {"one caller": {"callers": 1}, "two callers": {"callers": 2}}
    if there:
        hows["the worker"] = {"workers": 1}
        known = "SELECT count(*) FROM pg_settings WHERE name = 'profile_cache.refresh_workers'"
        if server.sql("postgres", known) == "1":
            hows["two workers"] = {"workers": 2}
    fill = "SELECT profile_cache.detach();\nSELECT profile_cache.attach()"
    works = [(s, f"fill of {s.users:,}", fill)]
    works += [(each, "plan that {:,} users have".format(subscriptions(server, each, "plan_id = 'pro'")), EDIT) for each in sets]
    for each, what, change in works:

        def case(how):
            against = {"two callers": {f"{what}: one caller": f"<= {1 / 1.7:.3g}"}, "the worker": {f"{what}: one caller": None}}.get(how)
            return Case(f"{what}: {how}", lambda warm: {"s": until_fresh(each, change, hows[how])}, "s", against, (what, "", how))

        bench.measure("callers", [case(how) for how in hows], bench.few_rounds, warm=False)
        verified(server, each)


def awake(bench):
    """What a commit costs with the worker awake: a subscription is changed, by one client, with the worker for that database and
    without; with nothing else going on, and beside an edit of a plan of twenty users every tenth of a second,
    which keeps the worker busy and which without it nobody refreshes meanwhile. CPU is that of the client's backend."""
    server, s = bench.server, life_size(bench)
    if not preload(bench, "awake"):
        return
    warmed(bench, s.cached)
    few = "INSERT INTO subscription_plan VALUES ('few', 'Few', 1, 1, '{}') ON CONFLICT DO NOTHING"
    server.run(s.cached, f"{few}; UPDATE user_subscription SET plan_id = 'few' WHERE user_id % 3 = 1 AND user_id <= 60")
    server.refresh(s.cached)
    edit = "UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'few'"

    def case(worker, edits, against=None):
        def run(warm):
            over, threads = threading.Event(), []
            server.sql(s.cached, "VACUUM user_profile, user_subscription;\nCHECKPOINT")
            with working_for(server, *([s.cached] if worker else [])):
                # It has begun, and is through with it.
                server.run(s.cached, edit)
                if worker:
                    drained(server, s.cached)
                else:
                    server.refresh(s.cached)
                if edits:
                    threads.append(every(0.1, over, lambda: server.run(s.cached, edit)))
                try:
                    figures = {} if warm else cpu_of_pgbench(server, s.cached, s.users)
                finally:
                    over.set()
                    for thread in threads:
                        thread.join()
                if worker:
                    drained(server, s.cached)
            server.refresh(s.cached)
            return figures

        what = f"{'with' if worker else 'without'} the worker{', beside edits' if edits else ''}"
        return Case(what, run, "µs of CPU", against)

    bench.measure("awake", [
        case(False, False),
        case(True, False, {"without the worker": "<= 1.03"}),
        case(False, True),
        case(True, True, {"without the worker, beside edits": None}),
    ], 2 * bench.options.rounds)  # fmt: skip
    server.run(s.cached, "UPDATE user_subscription SET plan_id = 'pro' WHERE plan_id = 'few'; DELETE FROM subscription_plan WHERE id = 'few'")
    server.refresh(s.cached)
    verified(server, s)


def cpu_of_pgbench(server, database, users, script="subscription", **options):
    """What a script, as a change of a subscription, takes of its backend's time on a core, with pgbench's own figures of it."""
    spent, over = {}, threading.Event()

    def watch():
        ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench' AND backend_type = 'client backend'"
        while not over.wait(0.05):  # pgbench's first connection only looks around
            for pid in server.sql("postgres", ours).split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    while not over.wait(0.01):
                        spent[pid] = cpu(pid)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        figures = server.pgbench(database, script, users, latencies=True, alone=False, **options)
    finally:
        over.set()
        watcher.join()
    if not spent:
        raise RuntimeError("pgbench was too quick to be watched")
    return {"µs of CPU": max(spent.values()) / figures["transactions"]} | {name: figures[name] for name in ("tps", "p50 ms", "p99 ms")}


def later(bench):
    """One change of a random user where the background worker computes the documents (profile_cache.compute), beside commits that do,
    no extension, and PL/pgSQL row triggers. CPU is that of the client's backend; the worker's is not in it, but takes what it
    needs of the same cores meanwhile. After each round it is waited until everything is computed."""
    server, s = bench.server, life_size(bench)
    if not preload(bench, "later"):
        return
    for database in (s.bare, s.cached, s.plpgsql):
        warmed(bench, database)
    peers = {"bare": (s.bare, None), "at commit": (s.cached, "commit"), "the worker": (s.cached, "worker"), "plpgsql": (s.plpgsql, None)}

    def case(script, clients, peer):
        database, how = peers[peer]
        name = f"{script}, {clients} client{'s' if clients > 1 else ''}"
        options = {"clients": clients, "settings": {"profile_cache.compute": how} if how else None}

        def run(warm):
            server.sql(database, "VACUUM user_profile, user_subscription, user_role;\nCHECKPOINT")
            if clients == 1:
                figures = cpu_of_pgbench(server, database, s.users, script, **options)
            else:
                figures = server.pgbench(database, script, s.users, latencies=True, alone=False, **options)
            if how == "worker":
                drained(server, database)
            return figures

        against = {"the worker": {f"{name}: bare": ">= 0.75", f"{name}: at commit": None}, "at commit": {f"{name}: bare": ">= 0.5", f"{name}: plpgsql": ">= 1.15"}}
        return Case(f"{name}: {peer}", run, "tps", against.get(peer), (f"Changes a second, {clients} client{'s' if clients > 1 else ''}", peer, script))

    with working_for(server, s.cached):
        for clients in (1, 8):
            for script in ("subscription", "role", "profile"):
                bench.measure("later", [case(script, clients, peer) for peer in peers])
    server.refresh(s.cached)
    verified(server, s)


def counting(bench):
    """What counting costs a hit: CPU of a session that reads by a loop in PL/pgSQL, with profile_cache.track on and off in turns."""
    preload(bench, "counting")
    s, server, calls, turns = bench.small, bench.server, 5_000 if bench.options.quick else 15_000, 20
    loop = f"""CREATE FUNCTION pg_temp.loop() RETURNS void LANGUAGE plpgsql AS $$
        DECLARE keys uuid[] := ARRAY(SELECT supabase_user_id FROM user_profile LIMIT 1000); result jsonb;
        BEGIN FOR i IN 1 .. {calls} LOOP result := get_profile(keys[1 + i % 1000]); END LOOP; END $$"""
    took = {}

    def run(warm):
        """Short turns, so that a machine that gets slower for a while does so for both."""
        took.update(on=0, off=0)
        for turn in range(2 * turns):
            track = ("on", "off")[(turn + turn // 2) % 2]
            session.do(f"SET profile_cache.track = {track}")
            before = cpu(pid)
            if said := session.do("SELECT pg_temp.loop()"):
                raise RuntimeError(said)
            took[track] += (cpu(pid) - before) / calls / turns
        return {"µs of CPU": took["on"]}

    served_from(server, s, "cache", "fresh")
    with Session(server, s.cached) as session:
        pid = session.do("SELECT pg_backend_pid()")
        # The library is loaded by the first call, and knows the setting from then on.
        if "ERROR" in (said := session.do(f"SELECT count(get_profile(supabase_user_id)) FROM user_profile; {loop}")):
            raise RuntimeError(said)
        bench.measure("counting", [[
            Case("a hit, counted", run, "µs of CPU", {"a hit, not counted": "<= 1.02"}),
            Case("a hit, not counted", lambda warm: {"µs of CPU": took["off"]}, "µs of CPU"),
        ]], 2 * bench.options.rounds)  # fmt: skip
    served_from(server, s, "cache", "fresh")


PHASES = {f.__name__: f for f in (warm, life, callers, awake, later, counting)}
