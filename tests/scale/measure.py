"""What a user costs: bytes, WAL, and seconds of a core, measured in one run on a private server. docs/scale.md has the figures.

    cd tests && python3 -m scale.measure                100,000 users, some minutes
    python3 -m scale.measure --users 20000 --library DIR    a library that is built already; nothing is installed then

Figures of CPU are those of the server's processes, of all of them and of no client, so that another load on the machine
disturbs them little. Nothing here is a rate by the clock. Prints the table for docs/scale.md; tests/output/scale.json has
every round.
"""

import argparse
import contextlib
import copy
import json
import os
import pathlib
import statistics
import subprocess
import time

from bench import bench, peers
from bench.phases import EDIT
from lib.cluster import CONFIG, OUTPUT, ROOT, pg_config

TICK = os.sysconf("SC_CLK_TCK")
ROUNDS = 3
WRITES = {"sign-up": "sign_up", "change of a subscription": "subscription", "change of a role": "role", "change of a profile": "profile"}


def stat(pid):
    """Parent, and seconds of CPU: its own, and its ended children's."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, ended = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
    return int(fields[1]), own / TICK, ended / TICK


def cpu(folder):
    """Seconds of CPU that the server in this folder has taken so far, with all of its processes, alive and gone."""
    postmaster = int((folder / "postmaster.pid").read_text().split()[0])
    _, own, total = stat(postmaster)
    total += own
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parent, own, _ = stat(path.name)
            total += own if parent == postmaster else 0
    return total


class Measure:
    def __init__(self, server, users):
        self.server, self.users, self.rounds = server, users, {}
        self.s = peers.databases(server, "scale", users)
        self.data = server.dir / "data"

    def keep(self, what, value):
        self.rounds.setdefault(what, []).append(value)
        print(f"{what}: {value:,.1f}", flush=True)

    def settled(self, database):
        """Nothing is left over from what came before."""
        self.server.sql(database, "VACUUM;\nCHECKPOINT")

    def read(self, what, times, act, data=None):
        """What it takes of a core, divided by how often it has been done. data: the folder of the server that does it."""
        before = cpu(data or self.data)
        act()
        time.sleep(0.3)  # until the ended processes have been counted
        self.keep(f"{what}: µs of CPU", (cpu(data or self.data) - before) * 1e6 / times)

    def write(self, what, database, times, act):
        """The same, and its WAL."""
        position = "SELECT pg_current_wal_insert_lsn() - '0/0'"
        before = float(self.server.sql(database, position))
        self.read(what, times, act)
        self.keep(f"{what}: bytes of WAL", (float(self.server.sql(database, position)) - before) / times)

    def bench(self, database, script, transactions, server=None):
        def act():
            (server or self.server).pgbench(database, script, self.users, transactions=transactions, alone=False)

        return act

    # What is measured

    def bytes(self):
        """A user's bytes in all tables, and those of them that the extension takes: as refresh leaves the table, and packed."""
        sizes = """SELECT sum(pg_table_size(oid)), sum(pg_indexes_size(oid)) FROM pg_class
            WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, to_regnamespace('profile_cache'))"""
        of = {}
        for state in ("filled", "packed"):
            for peer in ("bare", "cached"):
                database = getattr(self.s, peer)
                self.server.sql(database, "VACUUM FULL ANALYZE" if state == "packed" else "VACUUM")
                of[peer] = [float(n) / self.users for n in self.server.sql(database, sizes).split("|")]
            self.keep(f"tables without the extension, {state}: bytes a user", of["bare"][0])
            self.keep(f"indexes without the extension, {state}: bytes a user", of["bare"][1])
            self.keep(f"tables, {state}: bytes a user", of["cached"][0])
            self.keep(f"indexes, {state}: bytes a user", of["cached"][1])
        lengths = "SELECT avg(octet_length(cached_profile::text)), avg(pg_column_size(cached_profile)) FROM user_profile"
        for what, value in zip(("as text", "as stored"), self.server.sql(self.s.cached, lengths).split("|"), strict=True):
            self.keep(f"document {what}: bytes", float(value))

    def reads(self):
        s, n = self.s, self.users
        peers.served_from(self.server, s, "cache", "fresh")
        self.read("read from the cache", n, self.bench(s.cached, "get_profile", n))
        self.server.run(s.cached, "SELECT profile_cache.invalidate_all()")
        peers.served_from(self.server, s, "view", "pending")
        self.read("read from the view", n // 4, self.bench(s.cached, "get_profile", n // 4))
        self.settled(s.cached)
        # All anew: what a fill takes, after attach() or a restore.
        self.write("document of a fill", s.cached, n, self.refresh)
        peers.served_from(self.server, s, "cache", "fresh")

    def refresh(self):
        self.server.refresh(self.s.cached)

    def edits(self):
        """The documents of a plan that a third of the users have."""
        s = self.s
        shown = int(self.server.run(s.cached, "SELECT count(*) FROM user_subscription WHERE plan_id = 'pro'"))
        self.settled(s.cached)
        self.server.run(s.cached, EDIT)
        self.write("document of a plan's edit", s.cached, shown, self.refresh)
        peers.served_from(self.server, s, "cache", "fresh")

    def writes(self):
        n = self.users // 20
        for what, script in WRITES.items():
            for peer, how in (("bare", " without the extension"), ("cached", "")):
                database = getattr(self.s, peer)
                self.server.sql(database, f"ALTER DATABASE {database} SET synchronous_commit = off")
                self.settled(database)
                # After a checkpoint, each on pages that nobody has touched since: as in a large table.
                self.write(f"{what}{how}", database, n, self.bench(database, script, n))
        self.server.refresh(self.s.cached)
        peers.verified(self.server, self.s)

    def restore(self):
        for peer, how in (("bare", " without the extension"), ("cached", "")):
            dump, source = self.server.dir / "dump", getattr(self.s, peer)
            self.server.run_server_command(self.server.bindir / "pg_dump", "-Fc", "-Z0", "-f", dump, source)
            self.server.sql("postgres", "DROP DATABASE IF EXISTS restored WITH (FORCE);\nCREATE DATABASE restored OWNER app TEMPLATE template0")
            self.server.sql("restored", "CHECKPOINT")
            command = (self.server.bindir / "pg_restore", "-d", "restored", dump)
            self.write(f"restore of a dump{how}", "restored", self.users, lambda: self.server.run_server_command(*command))  # noqa: B023
        self.server.sql("postgres", "DROP DATABASE restored WITH (FORCE)")

    def nodes(self):
        """Reads on a primary and on two standbys: each alone, and all at once."""
        s, n = self.s, self.users // 2
        nodes = {"the primary": (self.server, self.data)}
        for i, name in enumerate(("a standby", "another standby")):
            folder, other = self.server.dir / f"standby{i}", copy.copy(self.server)
            self.server.run_server_command(self.server.bindir / "pg_basebackup", "-D", folder, "-R", "-X", "stream", "-c", "fast", "--no-sync")
            other.env = self.server.env | {"PGPORT": str(5433 + i)}
            self.server.start(data=folder.name, port=other.env["PGPORT"])
            nodes[name] = other, folder
        prewarm = "SELECT count(pg_prewarm(oid)) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')"
        for other, _ in nodes.values():
            other.sql(s.cached, prewarm)
        for _ in range(ROUNDS):
            for name, (other, folder) in nodes.items():
                peers.served_from(other, s, "cache", "fresh")
                self.read(f"read on {name}, alone", n, self.bench(s.cached, "get_profile", n, other), folder)
            before = {name: cpu(folder) for name, (_, folder) in nodes.items()}
            command = [self.server.bindir / "pgbench", "-n", "-M", "prepared", "-U", "app", f"-Dusers={self.users}", "-t", n, "-f", peers.HERE / "scripts/get_profile.sql", s.cached]
            running = [subprocess.Popen([str(c) for c in command], env=other.env, stdout=subprocess.DEVNULL) for other, _ in nodes.values()]
            if any(process.wait() for process in running):
                raise RuntimeError("pgbench failed")
            time.sleep(0.3)
            for name, (_, folder) in nodes.items():
                self.keep(f"read on {name}, beside the others: µs of CPU", (cpu(folder) - before[name]) * 1e6 / n)


def measured(server, users):
    """All of it, on a server that has nothing yet."""
    server.sql("postgres", "CREATE ROLE app LOGIN; CREATE ROLE reader LOGIN")
    measure = Measure(server, users)
    measure.bytes()
    for _ in range(ROUNDS):
        for each in (measure.reads, measure.edits, measure.writes, measure.restore):
            each()
    measure.nodes()
    if crashes := server.crashes():
        raise RuntimeError("\n".join(crashes))
    return measure.rounds


def table(rounds):
    """For the page: the least CPU of all rounds, since whatever else runs on the machine can only add to it; of bytes the median."""
    lines = ["| input | measured |", "| --- | --- |"]
    for what, values in rounds.items():
        value = min(values) if what.endswith("CPU") else statistics.median(values)
        lines.append(f"| {what} | {value:,.1f} |" if value < 100 else f"| {what} | {value:,.0f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pg", default="15", choices=CONFIG["pg"])
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--library", help="a folder with another profile_cache.so to measure; nothing is installed then")
    options = parser.parse_args()
    if not options.library:
        subprocess.run([ROOT / "tests/setup.sh", "install", pg_config(options.pg)], check=True)
    with peers.Server(options.pg, options.library, options.users, 1) as server:
        rounds, machine = measured(server, options.users), bench.machine(server)
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "scale.json").write_text(json.dumps({"machine": machine, "users": options.users, "rounds": rounds}, indent=1))
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), table(rounds), sep="\n\n")


if __name__ == "__main__":
    main()
