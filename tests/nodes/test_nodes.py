"""Three servers behind HAProxy, set up and failed over by what docs/operations/standbys.md says: its files and commands are run
from there. Reads of get_profile on standbys beside writers, one's own writes by the log's position, a primary that crashes
under load and comes back as a standby.
"""

import collections
import copy
import re
import subprocess
import time

import psycopg
import pytest

from lib.cluster import OUTPUT, ROOT, TESTS, Cluster
from lib.filled import PENDING, UNCACHED, VERIFY, WRONG, Session, expect, fill, wait_for
from lib.haproxy import HAProxy, free_ports
from nodes.load import KEY, Load

PAGE = ROOT / "docs/operations/standbys.md"
USERS, DATABASE = 600, "app"
PASSWORD = "of web"
DOCUMENTS = "SELECT md5(string_agg(supabase_user_id || document::text, ' ' ORDER BY supabase_user_id)) FROM profile_document"
FRESH = "SELECT stale = 0 AND pending_keys = 0 AND pending_epochs = 0 FROM profile_cache.status"
WORKERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('profile_cache worker', 'profile_cache launcher')"


class Page:
    """The blocks of the page, by language and a word that only one of them has. What they say of other machines is said of ours."""

    def __init__(self, ports):
        self.text, self.ports = PAGE.read_text(), ports

    def block(self, language, word=""):
        (found,) = (body for body in re.findall(rf"^```{language}\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL) if word in body)
        return self.ours(found)

    def ours(self, text):
        for n, port in self.ports.items():
            text = text.replace(f"10.0.0.{n}:5432", f"127.0.0.1:{port}").replace(f"host=10.0.0.{n} port=5432", f"host=127.0.0.1 port={port}")
        for name in ("writes", "reads"):
            text = re.sub(rf"(listen {name}\n +bind ):\d+", rf"\g<1>127.0.0.1:{self.ports[name]}", text)
        return re.sub(r"10\.0\.0\.\d+/\d+", "127.0.0.1/32", text)

    def python(self, name):
        known = {"time": time}
        exec(self.block("python"), known)
        return known[name]


class Node:
    """One of the three: the programs, for its port."""

    def __init__(self, nodes, number, port):
        self.nodes, self.number, self.name, self.port = nodes, number, f"node{number}", str(port)
        self.data = nodes.cluster.dir / ("data" if number == 1 else self.name)
        self.server = copy.copy(nodes.cluster)
        self.server.env = nodes.cluster.env | {"PGPORT": self.port}

    def start(self, **more):
        settings = {"listen_addresses": "127.0.0.1", "synchronous_commit": "on", "full_page_writes": "on", "cluster_name": self.name}
        self.nodes.cluster.start(self.data, self.port, **settings, **more)

    def stop(self, mode):
        self.nodes.cluster.stop(mode, self.data)

    def sql(self, text, database=DATABASE):
        return self.server.sql(database, text)

    def wait(self, what, sql, wanted="t"):
        wait_for(self.server, DATABASE, f"{self.name}, {what}", sql, wanted)

    def command(self, word, source):
        """A command of the page, for this node's folder, from another node."""
        command = re.sub(r"port=\d+", f"port={source.port}", self.nodes.page.block("sh", word))
        self.nodes.cluster.run_server_command("bash", "-euc", command.replace("/var/lib/postgresql/15/main", str(self.data)))


class Nodes:
    """The three servers and HAProxy before them."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.cluster.stop("fast")
        names = (1, 2, 3, "writes", "reads")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.page = Page(self.ports)
        self.nodes = {n: Node(self, n, self.ports[n]) for n in (1, 2, 3)}

    def __getitem__(self, number):
        return self.nodes[number]

    def conninfo(self, listener):
        return f"host=127.0.0.1 port={self.ports[listener]} dbname={DATABASE} user=web password='{PASSWORD}'"

    def build(self):
        first = self[1]
        (first.data / "pg_hba.conf").write_text("local all all trust\n" + self.page.block("conf"))
        with (first.data / "postgresql.conf").open("a") as config:
            config.write(self.page.block("ini"))
        # Commits do not wait for standbys that are yet to be made.
        first.start(synchronous_standby_names="")
        first.sql(f"CREATE ROLE web LOGIN PASSWORD '{PASSWORD}'", "postgres")
        first.sql(self.page.block("sql", "CREATE ROLE haproxy"), "postgres")
        first.sql(f"CREATE DATABASE {DATABASE} OWNER web TEMPLATE template0", "postgres")
        as_web = copy.copy(first.server)
        as_web.env = as_web.env | {"PGUSER": "web"}
        fill(as_web, DATABASE, USERS)
        for n in (2, 3):
            self[n].command("pg_basebackup", first)
            self[n].start()
        first.stop("fast")
        first.start()
        first.wait("both follow", "SELECT count(*) = 2 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'")

    def caught_up(self, primary, standby):
        lsn = primary.sql(self.page.block("sql", "pg_current_wal_insert_lsn"))
        standby.wait("catches up", f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'")


@pytest.fixture(scope="module")
def nodes(server):
    subprocess.run([TESTS / "setup.sh", "nodes"], check=True)
    with Cluster(server.major) as cluster:
        cluster.library = server.library
        nodes = Nodes(cluster)
        try:
            nodes.build()
            with HAProxy(cluster.dir, nodes.page.block("haproxy")) as nodes.haproxy:
                nodes.haproxy.wait_for("writes", "node1")
                nodes.haproxy.wait_for("reads", "node1", "node2", "node3")
                yield nodes
        finally:
            (OUTPUT / "nodes.log").write_text(cluster.log())
        if crashes := cluster.crashes():
            raise RuntimeError("\n".join(crashes))


def connections(nodes, listener, number):
    """Which servers so many connections lead to, and whether these are standbys."""
    found = collections.Counter()
    for _ in range(number):
        with psycopg.connect(nodes.conninfo(listener)) as pg:
            found[pg.execute("SELECT inet_server_port(), pg_is_in_recovery()").fetchone()] += 1
    return found


def test_where_haproxy_leads(nodes):
    """Writes go to the primary alone, reads to all three in equal parts, by the check that the page has."""
    one, two, three = (nodes.ports[n] for n in (1, 2, 3))
    hello = nodes[1].sql(nodes.page.block("sql", "hello"))
    expect("what each check sends", re.findall(r"send-binary (\w+)", nodes.page.block("haproxy")), [hello, hello])
    expect("writes", dict(connections(nodes, "writes", 9)), {(one, False): 9})
    expect("reads", dict(sorted(connections(nodes, "reads", 30).items())), dict(sorted({(one, False): 10, (two, True): 10, (three, True): 10}.items())))


def test_read_own_writes(nodes):
    """While a standby does not replay: a plain read there is as of then, and right for then; read_own() waits, and goes elsewhere."""
    read_own, position, one, two = nodes.page.python("read_own"), nodes.page.block("sql", "pg_current_wal_insert_lsn"), nodes[1], nodes[2]
    key = one.sql(f"SELECT {KEY % {'n': 4}}")
    shown = f"SELECT get_profile('{key}') ->> 'subscription_display_name'"
    standby, primary = (
        psycopg.connect(host=str(nodes.cluster.dir), port=node.port, dbname=DATABASE, user="postgres", autocommit=True) for node in (two, one)
    )
    with standby, primary:
        nodes.caught_up(one, two)
        two.sql("SELECT pg_wal_replay_pause()")
        two.wait("has paused", "SELECT pg_get_wal_replay_pause_state() = 'paused'")
        try:
            before = two.sql(shown)
            primary.execute("UPDATE subscription_plan SET display_name = 'Own' WHERE id = 'pro'")
            lsn = primary.execute(position).fetchone()[0]
            expect("a plain read on the standby", two.sql(shown), before)
            expect("wrong on the standby", two.sql(WRONG), 0)
            document = read_own(primary, standby, key, lsn, patience=0.2)
            expect("the primary's", '"subscription_display_name": "Own"' in document, True)
            one.wait("is fresh", FRESH)
            expect("once the worker is through, too", two.sql(shown), before)
        finally:
            two.sql("SELECT pg_wal_replay_resume()")
        # Nobody else to ask: it must have waited for the replay.
        for name in ("Own 2", "Own 3", "Own 4"):
            primary.execute("UPDATE subscription_plan SET display_name = %s WHERE id = 'pro'", [name])
            document = read_own(None, standby, key, primary.execute(position).fetchone()[0], patience=30)
            expect("replayed", f'"subscription_display_name": "{name}"' in document, True)
        nodes.caught_up(one, two)
        expect("wrong on the standby", two.sql(WRONG), 0)


def test_conflicts(nodes):
    """A vacuum on the primary cancels an old snapshot on a standby, unless that sends feedback; what it read until then was right."""
    one, two = nodes[1], nodes[2]

    def read_beside_vacuum(feedback):
        # On both: either one's feedback would keep what the vacuum is to remove.
        for node in (two, nodes[3]):
            node.sql(f"ALTER SYSTEM SET hot_standby_feedback = {feedback};\nALTER SYSTEM SET max_standby_streaming_delay = '100ms';\nSELECT pg_reload_conf();")
        one.wait(f"feedback {feedback}", f"SELECT count(*) = 2 FROM pg_stat_replication WHERE backend_xmin IS {'NOT ' if feedback == 'on' else ''}NULL")
        with Session(two.server, DATABASE) as reader:
            reader.do("BEGIN ISOLATION LEVEL REPEATABLE READ")
            expect("wrong at first", reader.do(WRONG), 0)
            one.sql("UPDATE user_profile SET company = company || '!' WHERE id < 50")
            one.sql("VACUUM user_profile")
            nodes.caught_up(one, two)
            return reader.do(WRONG)

    said = read_beside_vacuum("off")
    if "canceling statement due to conflict with recovery" not in said and "terminating connection due to conflict" not in said:
        raise RuntimeError(f"without feedback: {said}")
    expect("with feedback", read_beside_vacuum("on"), 0)
    for node in (two, nodes[3]):
        node.sql("ALTER SYSTEM RESET hot_standby_feedback;\nALTER SYSTEM RESET max_standby_streaming_delay;\nSELECT pg_reload_conf();")


def test_failover(nodes, say):
    """The primary crashes under load: of the acknowledged commits none is lost, no reader and no writer meets anything stale, the
    worker goes on where the new primary is, and the old one comes back as a standby."""
    one = nodes[1]
    with Load(nodes.conninfo("writes"), nodes.conninfo("reads"), USERS, nodes.page.python("read_own")) as load:
        time.sleep(6)
        crashed = time.monotonic()
        one.stop("immediate")
        new, other = elect(nodes, 2, 3)
        served_by_standbys(load)
        promoted = promote(nodes, new, other)
        nodes.haproxy.wait_for("writes", new.name)
        worker_moves(new, other)
        time.sleep(4)
        # It was a crash: the folder is as the server left it.
        one.command("pg_rewind", new)
        one.start()
        nodes.haproxy.wait_for("reads", "node1", "node2", "node3")
        one.wait("follows", "SELECT pg_is_in_recovery()")
        time.sleep(4)
        nodes.haproxy.wait_for("writes", new.name)
    if load.wrong:
        raise RuntimeError(f"{len(load.wrong)} times wrong:\n" + "\n".join(load.wrong[:10]))
    outage = min(at for at in load.committed_at if at > promoted) - crashed
    enough(nodes, load)
    at_the_end(nodes, new, (one, other), load)
    say(told(load, outage))


def told(load, outage):
    c, w = load.counts, load.where
    served = ", ".join(f"{role}: {w[role, 'hits']} from the cache, {w[role, 'misses']} from the view" for role in ("primary", "standby"))
    own, broken = c["reads of one's own"], ", ".join(f"{n} {what}" for what, n in sorted(c.items()) if "broken" in what or "doubt" in what)
    return (
        f"{c['writes']} commits, {c['edits']} of them edits of a plan or a role; of {len(load.acknowledged)} users' last names none is lost; "
        f"no commit for {outage:.1f} s\n{c['reads beside the view']} reads beside the view and {own} of one's own writes, none wrong; {served}\n{broken}"
    )


def elect(nodes, *numbers):
    """The standby that has the most of the log, and the other one."""
    received = {n: nodes[n].sql(f"SELECT received - '0/0' FROM ({nodes.page.block('sql', 'received').strip().rstrip(';')}) AS r") for n in numbers}
    first, second = sorted(numbers, key=lambda n: int(received[n]), reverse=True)
    return nodes[first], nodes[second]


def served_by_standbys(load):
    """With no primary there, reads go on."""
    def served():
        return load.where["standby", "hits"] + load.where["standby", "misses"]

    before, deadline = served(), time.monotonic() + 20
    while served() < before + 20:
        if time.monotonic() > deadline:
            raise RuntimeError("nobody is served while there is no primary")
        time.sleep(0.05)


def promote(nodes, new, other):
    """By the page's statements, which speak of node2."""

    def statement(word):
        return re.sub(r"port=\d+", f"port={new.port}", nodes.page.block("sql", word))

    new.sql(statement("pg_promote"), "postgres")
    promoted = time.monotonic()
    other.sql(statement("primary_conninfo"), "postgres")
    expect("the new primary's role", new.sql("SELECT pg_is_in_recovery()"), "f")
    return promoted


def worker_moves(new, other):
    """Launcher and worker are where the primary is, and refresh; on the standby there is none."""
    new.wait("has a worker", f"SELECT ({WORKERS}) >= 1 AND worker NOT LIKE 'off%' FROM profile_cache.status")
    # Only refresh gives numbers, and nobody else calls it. It need not come to its end while edits go on.
    numbered = new.sql("SELECT current FROM profile_cache.epoch")
    new.wait("refreshes", f"SELECT current > {numbered} FROM profile_cache.epoch")
    expect("workers on the standby", other.sql(WORKERS), 0)
    expect("the standby's status", other.sql("SELECT worker LIKE 'off: a standby has none%' FROM profile_cache.status"), "t")


def enough(nodes, load):
    """So much has happened that it shows something: hits and misses on standbys, on each node, and something was broken off."""
    counted = {what: load.counts[what] for what in ("writes", "edits", "reads beside the view", "reads of one's own")}
    where = {(n, how): load.where[nodes.ports[n], how] for n in (1, 2, 3) for how in ("hits", "misses")}
    if min(counted.values()) < 50 or min(where.values()) < 5 or not any("broken off" in what for what in load.counts):
        raise RuntimeError(f"too little has happened: {load.counts} {load.where}")


def at_the_end(nodes, new, others, load):
    """Nothing lost, nothing left to do without anybody calling refresh(), and the same documents on all three."""
    new.wait("is fresh", FRESH)
    names = ", ".join(f"({n}, '{name}')" for n, name in load.acknowledged.items())
    found = f"SELECT string_agg(format('user %s: %s, not %s', v.n, p.full_name, v.name), '; ') FROM (VALUES {names}) AS v (n, name) LEFT JOIN user_profile AS p ON p.id = v.n WHERE p.full_name IS DISTINCT FROM v.name"
    expect("what is lost", new.sql(found), "")
    for node in (new, *others):
        if node is not new:
            nodes.caught_up(new, node)
        for what, sql in (("wrong", WRONG), ("verify", VERIFY), ("pending", PENDING), ("stale", UNCACHED)):
            expect(f"{node.name}: {what}", node.sql(sql), 0)
        expect(f"{node.name}: documents", node.sql(DOCUMENTS), new.sql(DOCUMENTS))
    expect("warnings", new.sql("SELECT warnings FROM profile_cache.status"), "{}")
