"""What `make bench` measures, phase by phase: cases as data, run by bench.py.

A case names what it is compared with, and the target if there is one; "" is the figure itself.
Each phase leaves its databases as it found them: attached, and nothing pending.
"""

import dataclasses

from bench.peers import HERE, ROOT, redis, served_from, sign_offs, unused_is_unused, verified


@dataclasses.dataclass
class Case:
    """One thing that is measured."""

    what: str
    run: object  # run(warm) gives {unit: figure, and what else there is to tell: figure}
    unit: str
    against: dict = None  # what it is compared with ("" for the figure itself): the target, or None
    chart: tuple = None  # its title, the series, the place on the x axis


def reads(bench):
    """One profile, of a random user, from the cache."""
    s, server = bench.main, bench.server
    peers = [  # what, database, script
        ("SELECT NULL", s.bare, "null"),
        ("SELECT cached_profile", s.plpgsql, "select"),
        ("get_profile", s.cached, "get_profile"),
        ("the document view", s.bare, "view"),
        ("an ORM's five queries", s.bare, "orm"),
        ("materialized view", s.matview, "matview"),
    ]
    targets = {
        "prepared": {"SELECT cached_profile": ">= 0.95", "the document view": ">= 2", "Redis GET": None},
        "simple": {"SELECT cached_profile": ">= 1.15", "the document view": ">= 5"},
    }
    chart = "Reads a second, one client"
    served_from(server, s, "cache", "fresh")
    with redis(server, s, bench.log) as get:
        for mode, known in targets.items():
            others = dict.fromkeys([peer for peer, *_ in peers if peer != "get_profile"]) | known
            against = {f"{peer}, {mode}": target for peer, target in others.items()}
            cases = [
                bench.script(f"{what}, {mode}", database, script, s.users, against if what == "get_profile" else None,
                             (chart, mode, what), mode=mode)
                for what, database, script in peers
            ]  # fmt: skip
            if "Redis GET" in others:
                cases.append(bench.redis(f"Redis GET, {mode}", get, (chart, mode, "Redis GET")))
            bench.measure("reads", cases)
    where = "inside the server"
    against = {"": "<= 8", f"SELECT cached_profile, {where}": None, f"the document view, {where}": None}
    probe, view = (
        f"SELECT {column} INTO result FROM {table} WHERE supabase_user_id = key"
        for column, table in [("cached_profile", "user_profile"), ("document", "profile_document")]
    )
    bench.measure("reads", [
        bench.inside(f"get_profile, {where}", s.cached, "result := get_profile(key)", s.users, against),
        bench.inside(f"SELECT cached_profile, {where}", s.plpgsql, probe, s.users),
        bench.inside(f"the document view, {where}", s.bare, view, s.users),
    ])  # fmt: skip
    served_from(server, s, "cache", "fresh")


def lists(bench):
    """The profiles of a list of people, by get_profiles, and by as many calls of get_profile in one statement, or in as many."""
    s, server = bench.main, bench.server
    served_from(server, s, "cache", "fresh")
    for ids in (20, 100):
        one_by_one = server.dir / f"one_by_one_{ids}.sql"
        one_by_one.write_text("\\set n random(1, :users)\nSELECT get_profile(md5('user' || :n)::uuid);\n" * ids)
        in_one, each = f"{ids} ids, one statement with get_profile", f"{ids} ids, {ids} statements"
        chart = f"Lists of {ids} people a second, one client"
        bench.measure("lists", [
            bench.script(f"{ids} ids, get_profiles", s.cached, "list", s.users, {in_one: None, each: None}, (chart, "", "get_profiles"), ids=ids),
            bench.script(in_one, s.cached, "list_one_by_one", s.users, None, (chart, "", "one statement"), ids=ids),
            bench.script(each, s.cached, one_by_one, s.users, None, (chart, "", f"{ids} statements")),
        ], bench.few_rounds)  # fmt: skip


def roles(bench):
    """The same by a role that may only SELECT, without and with row security."""
    s, server = bench.small, bench.server

    def compare(how):
        served_from(server, s, "cache", "fresh")
        for mode in ("prepared", "simple"):
            what = f"{how}, {mode}"
            against = {f"SELECT cached_profile, {what}": None}
            bench.measure("roles", [
                bench.script(f"get_profile, {what}", s.cached, "get_profile", s.users, against, mode=mode, role="reader"),
                bench.script(f"SELECT cached_profile, {what}", s.plpgsql, "select", s.users, mode=mode, role="reader"),
            ], bench.few_rounds)  # fmt: skip

    compare("SELECT only")
    policy = "CREATE POLICY active ON user_profile FOR SELECT TO reader USING (is_active)"
    for database in (s.cached, s.plpgsql):
        server.run(database, f"{policy}; ALTER TABLE user_profile ENABLE ROW LEVEL SECURITY")
    compare("row security")
    for database in (s.cached, s.plpgsql):
        server.run(database, "DROP POLICY active ON user_profile; ALTER TABLE user_profile DISABLE ROW LEVEL SECURITY")


def misses(bench):
    """One profile that has to be read from the view, beside reading the view with a kept plan."""
    s, server = bench.small, bench.server

    def compare(why, reason, users=None, prefix=""):
        served_from(server, s, "view", reason, users)
        bench.measure("misses", [
            bench.script(f"get_profile, {why}", s.cached, f"{prefix}get_profile", s.users, {f"the view, {why}": ">= 0.77"}),  # 1 / 1.3
            bench.script(f"the view, {why}", s.cached, f"{prefix}view", s.users),
        ])  # fmt: skip
        served_from(server, s, "view", reason, users)

    server.run(s.cached, "SELECT profile_cache.invalidate_all()")
    compare("everything pending", "pending")
    server.refresh(s.cached)
    server.run(s.cached, "UPDATE role SET permissions = permissions || '\"users.write\"' WHERE name = 'member'")  # everyone is one
    compare("one role's edit pending", "pending")
    server.refresh(s.cached)
    ending = f"user_id % 180 = 18 AND user_id <= {s.users}"
    server.run(s.cached, f"UPDATE user_subscription SET current_period_end = clock_timestamp() + interval '1 second' WHERE {ending}")
    server.run(s.cached, f"SELECT pg_sleep_until(max(current_period_end)) FROM user_subscription WHERE {ending}")
    compare("expired", "expired", f"SELECT generate_series(18, {s.users} - 162, 180)", "expired_")
    server.run(s.cached, f"UPDATE user_subscription SET current_period_end = now() + interval '20 days' WHERE {ending}")
    server.refresh(s.cached)
    verified(server, s)


def writes(bench):
    """One change of a random user, and transactions as an ORM makes them; nobody refreshes meanwhile."""
    s, server = bench.main, bench.server
    unused_is_unused(server, s)
    hundred, (setting, change) = server.dir / "hundred_roles.sql", (HERE / "scripts/role.sql").read_text().splitlines()
    hundred.write_text("BEGIN;\n" + f"{setting}\n{change}\n" * 100 + "COMMIT;\n")
    changes = [  # what, script, by number of clients: at least that much of bare's rate, and of plpgsql's
        ("subscription", "subscription", {1: (">= 0.5", ">= 1.15"), 8: (">= 0.5", ">= 1.15")}),
        ("role", "role", {1: (">= 0.5", ">= 1.15"), 8: (">= 0.5", ">= 1.15")}),
        ("profile", "profile", {1: (">= 0.5", ">= 1.15"), 8: (">= 0.5", ">= 1.15")}),
        ("unused column", "unused", {1: (">= 0.97", None)}),
        ("set roles (2 statements)", "set_roles", {1: (None, None)}),
        ("sign-up (5 statements)", "sign_up", {1: (None, None), 8: (None, None)}),
        ("five users' roles, random order", "five_roles", {1: (None, None), 8: (None, None)}),
        ("100 users' roles (100 statements)", hundred, {1: (None, ">= 0.9")}),
    ]
    for change, script, targets in changes:
        for clients, (of_bare, of_plpgsql) in targets.items():
            what = f"{change}, {clients} client{'s' if clients > 1 else ''}"
            chart = f"Changes a second, {clients} client{'s' if clients > 1 else ''}"
            against = {f"{what}: bare": of_bare, f"{what}: plpgsql": of_plpgsql}
            bench.measure("writes", [
                bench.script(f"{what}: {peer}", getattr(s, peer), script, s.users, against if peer == "cached" else None,
                             (chart, peer, change), clients=clients, latencies=True)
                for peer in ("bare", "cached", "plpgsql")
            ], rounds=bench.few_rounds if "statements" in change else None)  # fmt: skip
        for database in (s.bare, s.cached, s.plpgsql):  # who has signed up goes, else some peers would have more users than others
            sign_offs(server, database, s.users)
        server.refresh(s.cached)
        verified(server, s)


def notify(bench):
    """What notifying costs those who write: PostgreSQL lets one transaction that notifies commit at a time. Nobody listening, or eight. And what a listener asks after a gap."""
    s, server = bench.main, bench.server
    for clients in (1, 8):
        whose = f"{clients} client{'s' if clients > 1 else ''}"
        off = f"profile, {whose}, off"
        for listeners in (0, 8):
            what = f"profile, {whose}, on, {listeners} listening"
            with server.listening(s.cached, listeners):
                bench.measure("notify", [
                    bench.script(f"{off}, {listeners} listening", s.cached, "profile", s.users, clients=clients, settings={"profile_cache.notify": "off"}),
                    bench.script(what, s.cached, "profile", s.users, {f"{off}, {listeners} listening": None}, clients=clients, settings={"profile_cache.notify": "on"}),
                ])  # fmt: skip
    asked = "SELECT count(*) FROM profile_cache.changed_since(profile_cache.changes_position())"
    bench.measure("notify", [bench.statement(f"changed_since, of {s.users:,} users none", s.cached, asked, unit="ms", times=1000)])
    verified(server, s)


EDIT = "UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'pro'"
# What a refresh after it has to compute, without any of its care.
BY_HAND = """UPDATE user_profile p SET cached_profile = d.document FROM profile_document d
    WHERE d.supabase_user_id = p.supabase_user_id AND p.id IN (SELECT user_id FROM user_subscription WHERE plan_id = 'pro')"""


def subscriptions(server, s, condition):
    return int(server.run(s.bare, f"SELECT count(*) FROM user_subscription WHERE {condition}"))


def bulk(bench):
    """One statement that concerns many users: until it has committed, and the refresh after it."""
    s, small, server = bench.main, bench.small, bench.server
    nine = f"user_id % 33 IN (1, 4, 7) AND user_id <= {s.users}"  # percent of the users
    change = f"UPDATE user_subscription SET status = CASE status WHEN 'active' THEN 'trialing' ELSE 'active' END WHERE {nine}"
    what, title = f"UPDATE of {subscriptions(server, s, nine):,} subscriptions", "UPDATE of nine percent of the users' subscriptions"
    bench.measure("bulk", [
        bench.statement(f"{what}: bare", s.bare, change, None, (title, "", "bare")),
        [
            bench.statement(f"{what}: cached", s.cached, change, {f"{what}: plpgsql": "<= 0.5", f"{what}: bare": "<= 1.3"},
                            (title, "", "cached")),
            bench.refresh("refresh after it", s, 1, {f"{what}: plpgsql": "<= 1"}, (title, "", "refresh")),
        ],
        bench.statement(f"{what}: plpgsql", s.plpgsql, change, None, (title, "", "plpgsql")),
    ], bench.few_rounds, warm=False)  # fmt: skip

    people, title = min(100_000, s.users // 2), "Sign-ups by COPY: profiles, subscriptions and two roles each, in one transaction"
    what, peers = f"{people:,} sign-ups by COPY", ("bare", "cached", "plpgsql")
    against = {f"{what}: bare": "<= 1.5", f"{what}: plpgsql": None}
    bench.measure("bulk", [
        bench.sign_ups(f"{what}: {peer}", s, peer, people, against if peer == "cached" else None, (title, "", peer)) for peer in peers
    ], bench.few_rounds, warm=False)  # fmt: skip

    rows, few = (subscriptions(server, each, "plan_id = 'pro'") for each in (s, small))
    what, title = f"edit of a plan that {rows:,} users have", "A plan that a third of the users have is edited"
    less = f"edit of a plan that {few:,} users have: cached"
    by_hand, refresh = f"UPDATE … FROM profile_document, {rows:,} rows", f"refresh of {rows:,}"
    materialize = "REFRESH MATERIALIZED VIEW CONCURRENTLY"
    bench.measure("bulk", [
        bench.statement(f"{what}: bare", s.bare, EDIT),
        [
            bench.statement(f"{what}: cached", s.cached, EDIT, {f"{what}: bare": None, less: None}, (title, "", "commit")),
            bench.refresh(refresh, s, 1, {by_hand: "<= 1.5", f"{what}: plpgsql": None, materialize: None}, (title, "", "refresh")),
        ],
        [bench.statement(less, small.cached, EDIT), bench.refresh(f"refresh of {few:,}", small)],
        [
            bench.statement(by_hand, s.matview, BY_HAND, None, (title, "", "UPDATE … FROM"), before=EDIT),
            bench.statement(materialize, s.matview, f"{materialize} profile_materialized", None, (title, "", "materialized view")),
        ],
        bench.statement(f"{what}: plpgsql", s.plpgsql, EDIT, None, (title, "", "plpgsql")),
    ], bench.few_rounds, warm=False)  # fmt: skip
    verified(server, s)


def growth(bench):
    """What a read, a write, a plan's edit and a refreshed document cost, by the number of users and of roles."""
    server, fewest = bench.server, bench.tiny.users
    sets = [(s, "users", s.users) for s in (bench.tiny, bench.small, bench.main)]
    sets += [(bench.databases(f"roles{n}", fewest, n), "roles a user", n) for n in (1, 10, 100)]
    reading, writing, editing = [], [], []
    for s, by, x in sets:
        at, rows = f"{by}: {x:,}", subscriptions(server, s, "plan_id = 'pro'")
        against = {f"SELECT cached_profile, {at}": None, f"the document view, {at}": None}
        reading += [
            bench.script(f"get_profile, {at}", s.cached, "get_profile", s.users, against, (f"Read, by {by}", "cached", x)),
            bench.script(f"SELECT cached_profile, {at}", s.plpgsql, "select", s.users, None, (f"Read, by {by}", "plpgsql", x)),
            bench.script(f"the document view, {at}", s.bare, "view", s.users, None, (f"Read, by {by}", "view", x)),
        ]
        against = {f"subscription, {at}: bare": None, f"subscription, {at}: plpgsql": None}
        writing += [
            bench.script(f"subscription, {at}: {peer}", getattr(s, peer), "subscription", s.users, against if peer == "cached" else None,
                         (f"Subscription changed, by {by}", peer, x))
            for peer in ("bare", "cached", "plpgsql")
        ]  # fmt: skip
        each = {"unit": "µs a document", "times": 1e6 / rows}
        editing += [
            [
                bench.statement(f"plan's edit, {at}", s.cached, EDIT, None, (f"Commit of a plan's edit, by {by}", "cached", x), "ms", 1000),
                bench.refresh(f"refresh, {at}", s, 1, {f"plpgsql's trigger, {at}": None}, (f"Refresh, by {by}", "cached", x), **each),
            ],
            bench.statement(f"plpgsql's trigger, {at}", s.plpgsql, EDIT, None, (f"Refresh, by {by}", "plpgsql", x), **each),
        ]
    bench.measure("growth", reading, bench.few_rounds)
    bench.measure("growth", writing, bench.few_rounds)
    for s, *_ in sets:
        server.refresh(s.cached)
    bench.measure("growth", editing, bench.few_rounds, warm=False)
    for s, *_ in sets:
        verified(server, s)


def bloat(bench):
    """What a change leaves behind: WAL, pages, and the share of HOT updates; from compact tables unless it says otherwise."""
    s, server = bench.databases("bloat", max(bench.options.users // 100, 2000)), bench.server

    tables = "user_profile, user_subscription, user_role"
    for database in (s.bare, s.cached, s.plpgsql):  # nothing is timed here, so nothing need wait for the disk
        server.sql("postgres", f"ALTER DATABASE {database} SET synchronous_commit = off")

    def state(database):
        found = server.sql(
            database,
            """SELECT sum(n_tup_upd) FILTER (WHERE relname = 'user_profile'), sum(n_tup_hot_upd) FILTER (WHERE relname = 'user_profile'),
                      sum(pg_relation_size(relid)), sum(pg_indexes_size(relid)), pg_current_wal_insert_lsn() - '0/0'
               FROM pg_stat_user_tables WHERE relname IN ('user_profile', 'user_subscription', 'user_role')""",
        )
        return [float(value) for value in found.split("|")]

    def changing(what, database, change, unit, chart, against=None, vacuum="VACUUM FULL"):
        """As many changes as there are users, twice: the first time each page is touched for the first time after a checkpoint."""

        def run(warm):
            server.sql(database, f"{vacuum} {tables};\nVACUUM ANALYZE {tables};\nCHECKPOINT")
            states = [state(database)]
            for _ in range(2):
                server.pgbench(database, change, s.users, transactions=s.users)
                states.append(state(database))
            first, second, both = ([b - a for a, b in zip(*pair)] for pair in (states[:2], states[1:], states[::2]))
            return {
                "WAL bytes": second[4] / s.users, "WAL bytes after a checkpoint": first[4] / s.users,
                "bytes of growth": (both[2] + both[3]) / (2 * s.users), "of them in indexes": both[3] / (2 * s.users),
                "HOT, % of the profile's updates": 100 * both[1] / both[0] if both[0] else None,
            }  # fmt: skip

        return Case(what, run, unit, against, chart)

    changes = ("profile", "subscription", "role")

    def each(how, **options):
        chart = "Growth of tables and indexes a change, by the room on the profile's pages"
        bench.measure("bloat", [
            changing(f"{change}: cached, {how}", s.cached, change, "bytes of growth", (chart, change, how), **options) for change in changes
        ], rounds=1, warm=False)  # fmt: skip

    for change in changes:
        against = {f"{change}: bare": None, f"{change}: plpgsql": None}
        bench.measure("bloat", [
            changing(f"{change}: {peer}", getattr(s, peer), change, "WAL bytes", ("WAL bytes a change", peer, change),
                     against if peer == "cached" else None)
            for peer in ("bare", "cached", "plpgsql")
        ], rounds=1, warm=False)  # fmt: skip
    for fillfactor in (100, 90, 80, 70):
        server.run(s.cached, f"ALTER TABLE user_profile SET (fillfactor = {fillfactor})")
        each(f"fillfactor {fillfactor}")
    for fillfactor in (100, 70):  # what attach() recommends is set on a compact table, before the first refresh
        server.run(s.cached, "ALTER TABLE user_profile RESET (fillfactor)")
        server.sql(s.cached, f"VACUUM FULL user_profile; ALTER TABLE user_profile SET (fillfactor = {fillfactor}); SELECT profile_cache.invalidate_all()")
        server.refresh(s.cached)
        each(f"as refresh leaves the table, fillfactor {fillfactor}", vacuum="VACUUM")
    server.run(s.cached, "ALTER TABLE user_profile RESET (fillfactor)")
    for how in ("lz4", "pglz"):
        server.sql("postgres", f"ALTER DATABASE {s.cached} SET wal_compression = {how}")
        each(f"wal_compression {how}")
    server.sql("postgres", f"ALTER DATABASE {s.cached} RESET wal_compression")
    verified(server, s)


def idle(bench):
    """CALL refresh() with nothing to do, by the number of users."""
    server, sets = bench.server, (bench.tiny, bench.small, bench.main)
    index = "user_profile_expiry ON user_profile (cached_profile_valid_until)"
    for s in sets:
        server.sql(s.cached, f"CREATE INDEX {index}")
        server.refresh(s.cached)
    least = f"refresh with nothing to do, users: {sets[0].users:,}"

    def call(s):
        what = f"refresh with nothing to do, users: {s.users:,}"
        return Case(what, lambda warm: {"ms": 1000 * server.seconds(s.cached, "CALL profile_cache.refresh()")}, "ms", {"": "<= 20", least: None})

    bench.measure("idle", [call(s) for s in sets])
    for s in sets:
        server.sql(s.cached, "DROP INDEX user_profile_expiry")
    bench.measure("idle", [
        Case("the same without an index on cached_profile_valid_until, the largest",
             lambda warm: {"ms": 1000 * server.seconds(sets[-1].cached, "CALL profile_cache.refresh()")}, "ms", {"": "<= 100"})
    ])  # fmt: skip


def pending(bench):
    """A hit while much is pending for others, or was, and an old snapshot keeps what is left of it."""
    s, server, rows = bench.small, bench.server, 1000 if bench.options.quick else 10000
    nothing = "get_profile, nothing pending"

    def hit(what, against=None):
        served_from(server, s, "cache", "fresh")
        bench.measure("pending", [bench.inside(what, s.cached, "result := get_profile(key)", s.users, against)], bench.few_rounds)

    def each(statement):
        """The statement so many times, in transactions of their own."""
        server.sql(s.cached, f"DO $$ BEGIN FOR i IN 1 .. {rows} LOOP {statement}; COMMIT; END LOOP; END $$")

    # As in life: there has been something.
    server.sql(s.cached, EDIT)
    server.refresh(s.cached)
    hit(nothing)
    # Of plans and roles that none of these users has.
    others = [f"INSERT INTO subscription_plan SELECT 'edited {n}', 'Edited', 5, 50, '{{}}'; INSERT INTO role (name, description, permissions) VALUES ('edited {n}', 'Edited', '[]')" for n in range(10)]
    server.sql(s.cached, others[0].partition(";")[0])
    hit("get_profile, one edit pending that concerns others", {nothing: "<= 1.5"})
    server.sql(s.cached, "; ".join([others[0].partition(";")[2], *others[1:]]))
    hit("get_profile, twenty such edits", {nothing: "<= 3"})
    server.refresh(s.cached)
    each("PERFORM profile_cache.invalidate(gen_random_uuid())")
    hit(f"get_profile, {rows:,} pending keys of others", {nothing: "<= 3"})
    server.sql(s.cached, "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'old'")
    server.refresh(s.cached)
    hit(f"get_profile, {rows:,} dead pending keys under an old snapshot", {nothing: "<= 3"})
    each(EDIT)
    server.refresh(s.cached)
    hit(f"get_profile, {rows:,} dead pending epochs too", {nothing: "<= 3"})
    server.sql(s.cached, "ROLLBACK PREPARED 'old'")
    server.sql(s.cached, "VACUUM profile_cache.pending_key;\nVACUUM profile_cache.pending_epoch;\nVACUUM subscription_plan")
    hit("get_profile, and after VACUUM", {nothing: "<= 1.5"})
    verified(server, s)


def ddl(bench):
    """DDL with and without the extension: on what the document has nothing to do with, and on the profile table."""
    s, bare = bench.tiny, "without"
    bench.server.sql("postgres", f"CREATE DATABASE {bare} OWNER app")
    bench.server.file(bare, ROOT / "tests/demo/tables.sql")
    for database in (bare, s.cached):
        bench.server.run(database, "CREATE TABLE unrelated (id int)")
    statements = [  # what, and to be repeated
        ("COMMENT ON TABLE unrelated", "COMMENT ON TABLE unrelated IS 'x';"),
        ("CREATE FUNCTION unrelated", "CREATE OR REPLACE FUNCTION unrelated() RETURNS int LANGUAGE sql RETURN 1;"),
        ("ALTER TABLE unrelated SET", "ALTER TABLE unrelated SET (fillfactor = 90);"),
        ("CREATE and DROP TABLE unrelated", "CREATE TABLE other (id int); DROP TABLE other;"),
        ("ALTER TABLE user_profile SET", "ALTER TABLE user_profile SET (fillfactor = 100);"),
        ("user_profile: ADD and DROP COLUMN", "ALTER TABLE user_profile ADD COLUMN other int; ALTER TABLE user_profile DROP COLUMN other;"),
        ("user_profile: ADD and DROP CHECK", "ALTER TABLE user_profile ADD CONSTRAINT other CHECK (id > 0); ALTER TABLE user_profile DROP CONSTRAINT other;"),
        ("user_profile: CREATE and DROP INDEX", "CREATE INDEX other ON user_profile (id, email); DROP INDEX other;"),
        ("user_role: ADD and DROP FOREIGN KEY", "ALTER TABLE user_role ADD CONSTRAINT other FOREIGN KEY (role_id) REFERENCES role; ALTER TABLE user_role DROP CONSTRAINT other;"),
    ]
    for what, statement in statements:
        for how, first in (("", False), (", first in its session", True)):
            against = {f"{what}{how}: without the extension": None}
            bench.measure("ddl", [
                bench.ddl(f"{what}{how}: without the extension", bare, statement, first),
                bench.ddl(f"{what}{how}: cached", s.cached, statement, first, against),
            ])  # fmt: skip
    for database in (bare, s.cached):
        bench.server.run(database, "DROP TABLE unrelated; DROP FUNCTION unrelated(); ALTER TABLE user_profile RESET (fillfactor)")
    served_from(bench.server, s, "cache", "fresh")


PHASES = {f.__name__: f for f in (reads, lists, roles, misses, writes, notify, bulk, growth, bloat, idle, pending, ddl)}
