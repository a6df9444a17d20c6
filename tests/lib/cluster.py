"""PostgreSQL servers for the tests and the demo. Server: one that runs already, found as any client
finds it. Cluster: a private one, a cluster of its own in a folder of its own under /tmp, reached
through a unix socket in that folder and nothing else.

    with Cluster(15) as server:
        server.create("mydb")
        print(server.sql("mydb", "SELECT 1"))

A cluster goes away with the process that made it, however that ends: a keeper process
waits on a pipe that closes when we exit or die, then stops the server and removes
the folder. As root the server runs as the user `postgres`, since PostgreSQL refuses
root; otherwise as the caller. Major and settings come from pgrx-test.toml, or from
the file that the environment variable PROFILE_CACHE_CONFIG names.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib

TESTS = pathlib.Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
OUTPUT = TESTS / "output"
CONFIG = tomllib.loads(pathlib.Path(os.environ.get("PROFILE_CACHE_CONFIG") or ROOT / "pgrx-test.toml").read_text())
# The extension's.
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]


def pg_config(major):
    """The pg_config of a major, an absolute path."""
    return str(ROOT / CONFIG["pg"][str(major)]["pg_config"])


KEEPER = """
trap '' INT TERM HUP
cat > /dev/null
for pid in "$2"/*/postmaster.pid; do
    [ -e "$pid" ] || continue
    "$1"/pg_ctl stop -D "${pid%/*}" -m fast -t 30 > /dev/null 2>&1 || "$1"/pg_ctl stop -D "${pid%/*}" -m immediate > /dev/null 2>&1
done
rm -rf "$2"
"""


def clean_environment():
    """The caller's environment without what would change how PostgreSQL or a test behaves."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    return env | {"LC_ALL": "C.UTF-8"}


class Server:
    """A running server, reached by the PG* variables in `env`, and the programs of the PostgreSQL that it is of."""

    def __init__(self, pg_config, env):
        self.pg_config = pg_config
        self.bindir = pathlib.Path(self.ask("--bindir"))
        self.env = env | {"PATH": f"{self.bindir}:{os.environ['PATH']}"}

    def ask(self, option):
        return subprocess.run([self.pg_config, option], check=True, text=True, capture_output=True).stdout.strip()

    def psql(self, database, *args, **options):
        """Runs psql; returns the finished process. Stops at the first error."""
        command = [self.bindir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, *args]
        return subprocess.run([str(a) for a in command], env=self.env, text=True, **options)

    def sql(self, database, sql):
        """Runs SQL, returns its output unaligned; raises what psql said if it fails."""
        done = self.psql(database, "-At", input=sql, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def create(self, database, template="template0"):
        """An empty database, or a copy of another one, whatever was there under that name."""
        self.sql("postgres", f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE);\nCREATE DATABASE "{database}" TEMPLATE "{template}";')

    def fresh(self, part, database):
        """A database of its own, empty but for tests/PART/setup.sql, where that exists."""
        self.create(database)
        setup = TESTS / part / "setup.sql"
        if setup.exists():
            self.sql(database, setup.read_text())

    def drop(self, database):
        self.sql("postgres", f'DROP DATABASE "{database}" WITH (FORCE)')


class Cluster(Server):
    user = "postgres"  # the superuser in the database, whoever runs the server
    port = "5432"  # only names the socket, in a folder that nobody shares

    def __init__(self, major, library=None, initdb=(), asked=None):
        """initdb: options for it beside ours. asked: the pg_config of another minor release."""
        self.major, self.initdb = str(major), initdb
        super().__init__(asked or pg_config(self.major), clean_environment())
        # Found before the installed library of the same name.
        self.library = {"dynamic_library_path": f"{library}:$libdir"} if library else {}
        # Not $TMPDIR: that may lie under a home that the server's user cannot enter,
        # or be too long for a socket's name.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="profile_cache_", dir="/tmp"))
        self.env |= {"PGHOST": str(self.dir), "PGPORT": self.port, "PGUSER": self.user, "PGCTLTIMEOUT": "300"}

    def server_command(self, *args):
        """A command as the user the server runs as."""
        return (["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []) + [str(a) for a in args]

    def run_server_command(self, *args):
        # Output goes to a file: a pipe would stay open for as long as the server runs.
        with tempfile.TemporaryFile("w+") as out:
            done = subprocess.run(self.server_command(*args), cwd=self.dir, env=self.env, stdout=out, stderr=out)
            if done.returncode:
                out.seek(0)
                raise RuntimeError(f"{args[0]} failed:\n{out.read()}{self.log_tail()}")

    def __enter__(self):
        # SIGTERM and SIGHUP end us as Ctrl-C does, through every `finally`.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda n, _: sys.exit(128 + n))
        if os.geteuid() == 0:
            shutil.chown(self.dir, "postgres", "postgres")
        self.keeper = subprocess.Popen(
            self.server_command("sh", "-c", KEEPER, "keeper", self.bindir, self.dir),
            stdin=subprocess.PIPE, start_new_session=True, cwd="/", env=self.env,
        )  # fmt: skip
        try:
            data = self.dir / "data"
            self.run_server_command(
                self.bindir / "initdb", "-D", data, "-U", self.user, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", *self.initdb
            )
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        self.keeper.stdin.close()
        self.keeper.wait()

    def start(self, data="data", port=None, **more):
        """Starts the server, or with another folder and port a second one (a standby) on the same socket folder."""
        self.run_server_command(*self.start_command(data, port, **more))

    def start_command(self, data="data", port=None, **more):
        settings = CONFIG["settings"] | {"listen_addresses": "", "unix_socket_directories": self.dir, "port": port or self.port}
        if int(self.major) < 17 and "profile_cache" not in more.get("shared_preload_libraries", ""):
            settings["profile_cache.track"] = "off"  # there are no counters, and status need not say so in every test
        options = " ".join(f"-c {name}='{value}'" for name, value in (settings | self.library | more).items())
        return [self.bindir / "pg_ctl", "start", "-w", "-D", self.dir / data, "-l", self.dir / "log", "-o", options]

    def commands(self):
        """For the environment of tests in processes of their own: the superuser, and how to STOP (and a mode) and START, as JSON."""
        stop = [self.bindir / "pg_ctl", "stop", "-w", "-D", self.dir / "data", "-m"]
        commands = {"STOP": stop, "START": self.start_command()}
        return {"SUPERUSER": self.user} | {name: json.dumps(self.server_command(*command)) for name, command in commands.items()}

    def running(self):
        status = self.server_command(self.bindir / "pg_ctl", "status", "-D", self.dir / "data")
        return subprocess.run(status, cwd="/", env=self.env, capture_output=True).returncode == 0

    def stop(self, mode, data="data"):
        """Stops it; mode immediate is a crash."""
        self.run_server_command(self.bindir / "pg_ctl", "stop", "-w", "-m", mode, "-D", self.dir / data)

    def log(self):
        try:
            return (self.dir / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def log_tail(self, lines=30):
        return "\n".join(["server log, its end:", *self.log().splitlines()[-lines:]])

    def crashes(self):
        """Lines of the log that no test may leave behind."""
        return re.findall(r"^.*(?:PANIC:|terminated by signal|TRAP:).*$", self.log(), re.MULTILINE)
