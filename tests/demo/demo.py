"""`make demo`: the extension at work on the conventional tables with 100,000 users.

The server is private and goes away at the end (lib/cluster.py). The story is
told by SQL: tables.sql and data.sql make the app, story.sql attaches the extension
and changes things, by_hand.sql and timing.sql compare a read with what it replaces.
DEMO_USERS and DEMO_READS make it smaller or larger.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import time

from lib.cluster import CONFIG, ROOT, Cluster, pg_config

HERE = pathlib.Path(__file__).resolve().parent
USERS = int(os.environ.get("DEMO_USERS", "100000"))
READS = int(os.environ.get("DEMO_READS", "20000"))


# What one request sends, for pgbench: {n} is the number of a user.
KEY = "\\set n random(1, {users})\n"
REQUESTS = {
    "get_profile": "SELECT get_profile(md5('user' || :n)::uuid);",
    "the join that builds it": "SELECT by_join(md5('user' || :n)::uuid);",
    "the five queries of an ORM": """
        SELECT * FROM user_profile WHERE supabase_user_id = md5('user' || :n)::uuid;
        SELECT * FROM user_subscription WHERE user_id = :n;
        SELECT * FROM subscription_plan WHERE id = 'pro';
        SELECT role_id FROM user_role WHERE user_id = :n;
        SELECT * FROM role WHERE id IN (1, 2);""",
}


def as_a_client_sees_it(server):
    """The same reads through a connection: prepared statements, one client, no network but a unix socket."""
    print("As one client sees it, through a unix socket (a network makes every round trip dearer):", flush=True)
    first = None
    for what, statements in REQUESTS.items():
        command = [server.bindir / "pgbench", "-n", "-M", "prepared", "-t", str(READS), "-U", "app", "-f", "/dev/stdin", "demo"]
        script = KEY.format(users=USERS) + statements.replace("\n        ", "\n")
        done = subprocess.run(command, input=script, env=server.env, text=True, capture_output=True, check=True)
        took = 1000 * float(re.search(r"latency average = ([\d.]+) ms", done.stdout)[1])
        first = first or took
        print(f"  {what:26} | {took:6.0f} microseconds | {took / first:5.1f}")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pg", default="15", choices=CONFIG["pg"], help="PostgreSQL's major version")
    major = parser.parse_args().pg
    start = time.monotonic()
    subprocess.run([ROOT / "tests/setup.sh", "install", pg_config(major)], check=True)

    with Cluster(major) as server:
        server.sql("postgres", "CREATE ROLE app LOGIN;\nCREATE DATABASE demo OWNER app;")

        def tell(*files):
            for file in files:
                # Through stdin: with -f, psql puts file and line before every NOTICE.
                options = ["-U", "app", "-v", f"users={USERS}", "-v", f"reads={READS}"]
                if server.psql("demo", *options, input=(HERE / file).read_text(), stderr=subprocess.STDOUT).returncode:
                    sys.exit(f"the demo failed in {file}\n{server.log_tail()}")

        print(f"\n== The app: its tables, {USERS:,} users (PostgreSQL {major}, private, in {server.dir})", flush=True)
        tell("tables.sql", "data.sql", "story.sql", "by_hand.sql", "timing.sql")
        as_a_client_sees_it(server)
        tell("end.sql")
        size = server.sql("demo", "SELECT pg_size_pretty(pg_total_relation_size('user_profile'))")
        print(f"user_profile with its cache and indexes: {size}.")
    print(f"\nDone in {time.monotonic() - start:.0f} s. The private server, its data and its log were removed.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
