"""The private server of the bench, and the peers on it: databases with the same tables and data, and a Redis.

For a number of users there is one database for each peer: `bare` without triggers; `cached`, with the
extension attached; `plpgsql`, with hand-written row triggers (plpgsql.sql); `matview`, with a materialized
view. One view's SQL builds all documents, and that they are the same is checked before anything is measured.
"""

import contextlib
import os
import pathlib
import re
import statistics
import subprocess
import time
import types

from lib.cluster import ROOT, Cluster

HERE = pathlib.Path(__file__).resolve().parent
KEY = "md5('user' || n)::uuid"  # of user n, as in ../demo/data.sql

# As in production, unlike the tests' settings: commits reach the disk. Checkpoints and vacuum come
# when we call for them, not in the middle of one peer's turn. deadlock_timeout stays short, else a
# rare deadlock would be all that a round of seconds shows.
SETTINGS = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "deadlock_timeout": "100ms",
    "max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off", "maintenance_work_mem": "256MB",
}  # fmt: skip


def shared_buffers(users):
    """Megabytes in which all databases fit, but no more than half of the machine's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return min(256 + users // 120, memory // 2)


class Server(Cluster):
    """The private server with the bench's settings. What it runs, it runs as the tables' owner, `app`."""

    def __init__(self, major, library, users, seconds):
        super().__init__(major, library)
        self.settings = SETTINGS | {"shared_buffers": f"{shared_buffers(users)}MB"}
        self.round = seconds  # of pgbench

    def start(self, **more):
        super().start(**self.settings, **more)

    def run(self, database, text):
        """Runs SQL; returns its output unaligned."""
        done = self.psql(database, "-At", "-U", "app", input=text, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"in {database}: {done.stderr.strip()}\n{text[:500]}")
        return done.stdout.strip()

    def file(self, database, path, **variables):
        self.run(database, "".join(f"\\set {k} {v}\n" for k, v in variables.items()) + path.read_text())

    def seconds(self, database, statement):
        """How long one statement takes, as psql sees it."""
        return timing(self.run(database, f"\\timing on\n{statement}"))

    def refresh(self, database, role="app"):
        """Seconds that CALL refresh() takes, and the most private memory of its backend in MB, sampled."""
        command = [self.bindir / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", database]
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, env=self.env, text=True, **options) as process:
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
        return timing(printed), peak

    @contextlib.contextmanager
    def cores(self, clients):
        """One client and its backend take turns: on one core, so that the scheduler's choices are not what is measured."""
        mine, postmaster = os.sched_getaffinity(0), int((self.dir / "data/postmaster.pid").read_text().split()[0])
        wanted = {max(mine)} if clients == 1 else mine
        try:
            for pid in (0, postmaster):  # inherited by pgbench, and by new backends
                os.sched_setaffinity(pid, wanted)
            yield
        finally:
            for pid in (0, postmaster):
                os.sched_setaffinity(pid, mine)

    @contextlib.contextmanager
    def listening(self, database, sessions):
        """With so many sessions that listen to profile_cache, and take what comes."""
        command = [self.bindir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "app", "-d", database]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
        listeners = [subprocess.Popen(command, env=self.env, **pipes) for _ in range(sessions)]
        for listener in listeners:
            listener.stdin.write("LISTEN profile_cache;\nSELECT 1 \\watch 0.2\n")
            listener.stdin.close()
        found = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT 1 *$'"
        while int(self.sql(database, found)) < sessions:
            time.sleep(0.1)
        try:
            yield
        finally:
            for listener in listeners:
                listener.terminate()
                listener.wait()

    def pgbench(self, database, script, users, mode="prepared", clients=1, role="app", latencies=False, transactions=None, alone=True, settings=None, **more):
        """Transactions a second, and latencies if asked for, of one script of scripts/, or of a file. settings: of its sessions.
        more: variables of it."""
        env = self.env | {"PGOPTIONS": " ".join(f"-c {name}={value}" for name, value in (settings or {}).items())}
        log = self.dir / "latencies"
        command = [
            self.bindir / "pgbench", "-n", "-M", mode, "-c", clients, "-j", min(clients, 2), "-U", role,
            *(f"-D{name}={value}" for name, value in ({"users": users} | more).items()),
            *(["-t", transactions] if transactions else ["-T", self.round]), "--max-tries=100",
            *(["-l", f"--log-prefix={log}"] if latencies else []), 
            "-f", script if isinstance(script, pathlib.Path) else HERE / "scripts" / f"{script}.sql", database,
        ]  # fmt: skip
        with self.cores(clients) if alone else contextlib.nullcontext():
            done = subprocess.run([str(c) for c in command], env=env, text=True, capture_output=True)
        said = dict(re.findall(r"^(.*?)(?: =|:) ([\d.]+)", done.stdout, re.MULTILINE))
        if done.returncode or said.get("number of failed transactions") != "0":
            raise RuntimeError(f"pgbench, {script} in {database}:\n{done.stdout}{done.stderr}")
        result = {"tps": float(said["tps"])}
        if latencies:
            took = []
            for path in self.dir.glob("latencies.*"):
                took += [int(line.split()[2]) / 1000 for line in path.read_text().splitlines()]
                path.unlink()
            cuts = statistics.quantiles(took, n=100)
            result |= {"average ms": statistics.mean(took), "p50 ms": cuts[49], "p95 ms": cuts[94], "p99 ms": cuts[98]}
            result["retried"] = int(said["number of transactions retried"])
        if not alone:
            result["transactions"] = int(said["number of transactions actually processed"])
        return result


def timing(printed):
    """Seconds, by psql's \\timing."""
    return float(re.findall(r"^Time: ([\d.]+) ms", printed, re.MULTILINE)[-1]) / 1000


# Databases


def databases(server, name, users, roles=0, peers=("bare", "cached", "plpgsql")):
    """Makes the databases for so many users, with so many roles each (0: as in the demo's data).

    The extension is created in all of them, since the view prints timestamps with a function of it;
    but only in `cached` is it attached, and only there do tables have its triggers.
    """
    s = types.SimpleNamespace(users=users, roles=roles, **{peer: f"{name}_{peer}" for peer in peers})

    def copy(source, target):
        server.sql("postgres", f"CREATE DATABASE {target} TEMPLATE {source} OWNER app STRATEGY file_copy")

    server.sql("postgres", f"CREATE DATABASE {s.bare} OWNER app")
    server.file(s.bare, ROOT / "tests/demo/tables.sql")
    server.file(s.bare, ROOT / "tests/demo/data.sql", users=users)
    server.file(s.bare, HERE / "data.sql", roles=roles)
    server.run(s.bare, "CREATE EXTENSION profile_cache; GRANT SELECT ON user_profile TO reader")
    server.sql(s.bare, "CREATE EXTENSION pg_prewarm; VACUUM ANALYZE")

    copy(s.bare, s.cached)
    server.run(s.cached, "SELECT profile_cache.attach(); CALL profile_cache.refresh()")
    view = server.run(s.cached, "SELECT pg_get_viewdef('profile_document')")
    server.run(s.bare, f"CREATE VIEW profile_document AS {view}")
    copy(s.bare, s.plpgsql)
    fill = "UPDATE user_profile p SET cached_profile = d.document FROM profile_document d WHERE d.supabase_user_id = p.supabase_user_id"
    server.run(s.plpgsql, f"ALTER TABLE user_profile ADD COLUMN cached_profile jsonb; {fill}")
    if "matview" in peers:
        copy(s.plpgsql, s.matview)
        server.run(
            s.matview,
            "CREATE MATERIALIZED VIEW profile_materialized AS SELECT supabase_user_id, document FROM profile_document;"
            "CREATE UNIQUE INDEX ON profile_materialized (supabase_user_id)",
        )
    server.file(s.plpgsql, HERE / "plpgsql.sql")
    for peer in peers:
        server.sql(getattr(s, peer), "VACUUM ANALYZE")
    server.sql("postgres", "CHECKPOINT")
    relations = "FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i', 'm')"
    for peer in peers:
        server.sql(getattr(s, peer), f"SELECT sum(pg_prewarm(oid)) {relations}")
    same_documents(server, s, peers)
    return s


def sign_offs(server, database, users):
    """Who has signed up since the database was made goes again."""
    for table, column in (("user_role", "user_id"), ("user_subscription", "user_id"), ("user_profile", "id")):
        server.run(database, f"DELETE FROM {table} WHERE {column} > {users}")


# What must hold for a comparison to be one


def same_documents(server, s, peers):
    """A thousand users' documents, as every peer would give them."""
    sources = {
        "bare": "SELECT document FROM profile_document WHERE supabase_user_id = key",
        "cached": "SELECT get_profile(key)",
        "plpgsql": "SELECT cached_profile FROM user_profile WHERE supabase_user_id = key",
        "matview": "SELECT document FROM profile_materialized WHERE supabase_user_id = key",
    }
    sample = f"(SELECT n, {KEY} AS key FROM generate_series(1, {s.users}, greatest({s.users} / 1000, 1)) n) sample"
    digest = "SELECT count(doc), md5(string_agg(doc::text, '' ORDER BY n))"
    sums = {peer: server.run(getattr(s, peer), f"{digest} FROM {sample}, LATERAL ({sources[peer]}) d (doc)") for peer in peers}
    if len(set(sums.values())) != 1 or sums["bare"].startswith("0|"):
        raise RuntimeError(f"the peers' documents differ: {sums}")


def served_from(server, s, source, reason, users=None):
    """get_profile takes the documents of these users (a sample of all) from there."""
    users = users or f"SELECT n FROM generate_series(1, {s.users}, greatest({s.users} / 200, 1)) n"
    explained = f"SELECT DISTINCT e ->> 'served_from', e ->> 'reason' FROM ({users}) u (n), profile_cache.explain({KEY}) e"
    found = server.run(s.cached, explained)
    if found != f"{source}|{reason}":
        raise RuntimeError(f"{s.cached}: documents should come from the {source} ({reason}), but explain() says\n{found}")


def verified(server, s):
    if problems := server.run(s.cached, "SELECT * FROM profile_cache.verify(1000)"):
        raise RuntimeError(f"{s.cached}: verify() found\n{problems[:2000]}")


def unused_is_unused(server, s):
    """The column that scripts/unused.sql changes leaves the document alone, the one of scripts/subscription.sql does not."""
    written = "SELECT profile_cache_updated_at FROM user_profile WHERE id = 1;"
    change = "UPDATE user_subscription SET {} WHERE user_id = 1;"
    found = server.run(
        s.cached, written + change.format("stripe_subscription_id = 'sub_x'") + written + change.format("status = 'trialing'") + written
    ).splitlines()
    if found[0] != found[1] or found[1] == found[2]:
        raise RuntimeError(f"{s.cached}: a document's time at first, after an unused column's change, after a used one's: {found}")


# Redis


@contextlib.contextmanager
def redis(server, s, log):
    """A Redis of our own on a unix socket, with the documents of matview; gives a function that reads so many, for reads a second."""
    socket = server.dir / "redis"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    # It dies with us, however we end.
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=log.open("w"), stderr=subprocess.STDOUT, cwd=server.dir)
    try:
        client = ["redis-cli", "-s", str(socket)]
        while subprocess.run([*client, "ping"], capture_output=True, text=True).stdout.strip() != "PONG":
            if process.poll() is not None:
                raise RuntimeError(f"redis-server ended:\n{log.read_text()}")
            time.sleep(0.05)
        # redis-benchmark reads keys of twelve digits, from 0 to less than the number of users.
        query = f"SELECT n % {s.users}, document FROM generate_series(1, {s.users}) n JOIN profile_materialized ON supabase_user_id = {KEY}"
        raw = "(FORMAT csv, DELIMITER E'\\x02', QUOTE E'\\x01')"  # neither is in a document
        psql = [server.bindir / "psql", "-X", "-d", s.matview, "-c", f"COPY ({query}) TO STDOUT {raw}"]
        with (
            subprocess.Popen(psql, env=server.env, stdout=subprocess.PIPE) as rows,
            subprocess.Popen([*client, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as loader,
        ):
            for row in rows.stdout:
                n, document = row.rstrip(b"\n").split(b"\x02")
                words = [b"SET", b"profile:%012d" % int(n), document]
                loader.stdin.write(b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        user7 = subprocess.run([*client, "GET", f"profile:{7:012}"], capture_output=True, text=True, check=True).stdout.strip()
        size = subprocess.run([*client, "DBSIZE"], capture_output=True, text=True, check=True).stdout.strip()
        expected = str(s.users), server.run(s.cached, "SELECT get_profile(md5('user7')::uuid)")
        if rows.returncode or loader.returncode or (size, user7) != expected:
            raise RuntimeError(f"Redis has {size} documents; that of user 7: {user7}")

        def get(requests):
            options = ["-s", str(socket), "-c", "1", "-n", str(requests), "-r", str(s.users), "--csv"]
            command = ["redis-benchmark", *options, "GET", "profile:__rand_int__"]
            with server.cores(1):
                os.sched_setaffinity(process.pid, os.sched_getaffinity(0))
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            return float(done.stdout.splitlines()[-1].split('","')[1])

        yield get
    finally:
        process.kill()
        process.wait()
