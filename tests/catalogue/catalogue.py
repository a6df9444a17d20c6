"""One accepted view of the catalogue, attached to an app of its own making, under random writes.

    tests/.venv/bin/pytest tests/catalogue                              every view, less than a second each
    tests/.venv/bin/pytest tests/catalogue -k 31_manager --seconds 60   one view, for a minute

tests/catalogue/accepted/*.sql are views over the tables of tests/catalogue/schema.sql: shapes that
attach() must understand. Concurrent transactions write to every table of the schema; what they write
is chosen from the catalogs (columns, types, keys, foreign keys), so nothing here knows what a view
shows. The oracle is that of stress/stress.py: get_profile() and the view agree at any time, for anyone.

A test that cannot fail shows nothing, so this also fails where
- the tables that attach() follows are not those that the view reads by PostgreSQL's own account,
- after a last refresh some profile is not served from the cache,
- a column that the view does not use distrusts a document when it changes,
- no write to one of the tables that the view reads changed a document in the whole run.
"""

import collections
import pathlib
import time

from psycopg import pq

from lib.command import Failed, Vacuous
from lib.sessions import PINNED, Connection, Oracle, Scheduler, Step, Worker, arguments, literal, main

PROFILE, KEY, VIEW = "accounts_profile", "auth_id", "document"
ORACLE = Oracle(PROFILE, KEY, VIEW)
# All documents as one value: what a write has changed is seen by comparing two of them in one snapshot.
DOCUMENTS = f"SELECT md5(string_agg(v.{KEY} || ' ' || v.document::text, ' ' ORDER BY v.{KEY})) FROM {VIEW} AS v"

# The tables and columns that a view reads, through views in it: PostgreSQL keeps that to guard them.
# Whole rows are not among them, so those are looked for in the query trees (0 is their column's number).
USED = f"""WITH RECURSIVE reads (rule, relation, number) AS (
    SELECT r.oid, d.refobjid, d.refobjsubid FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
     WHERE r.ev_class = '{VIEW}'::regclass AND d.refclassid = 'pg_class'::regclass
    UNION SELECT r.oid, d.refobjid, d.refobjsubid FROM reads AS s JOIN pg_rewrite AS r ON r.ev_class = s.relation
     JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid WHERE d.refclassid = 'pg_class'::regclass)
SELECT DISTINCT c.relname, coalesce(a.attname, ''), EXISTS (SELECT FROM reads AS w JOIN pg_rewrite AS r ON r.oid = w.rule WHERE r.ev_action LIKE '%:varattno 0 %')
 FROM reads AS s JOIN pg_class AS c ON c.oid = s.relation LEFT JOIN pg_attribute AS a ON a.attrelid = s.relation AND a.attnum = s.number AND s.number > 0 WHERE c.relkind = 'r'"""


class Column:
    """A column of the app, and values for it."""

    def __init__(self, table, name, kind, base, nullable, generated, unique):
        self.table, self.name, self.kind, self.base = table, name, kind, base
        self.nullable, self.generated, self.unique = nullable == "t", generated == "t", unique == "t"
        self.used = False  # by the view
        self.refers = None  # the column that a foreign key compares it with
        self.known = []  # the values it began with, as literals

    def pool(self):
        """What a key can be, in all that compare with it: the values at first, and a few that are new."""
        if self.refers:
            pool = self.refers.pool()
            return pool if self.base == self.refers.base or self.base != "integer" else [v for v in pool if "." not in v]
        if self.base in ("integer", "bigint"):
            return [str(i) for i in range(1, len(self.known) + 3)]
        if self.base == "uuid":
            return self.known + [f"'ffffffff-0000-4000-8000-{i:012d}'" for i in (1, 2)]
        if self.base == "numeric":
            # Equal, but not the same: a key that is written otherwise.
            return self.known + ["1.0", "2", "4.500", "7"]
        return self.known + [v.upper() for v in self.known] + ["'new'"]

    def value(self, rng):
        if self.nullable and rng.random() < 0.12:
            return "NULL"
        if self.refers or self.unique:
            return rng.choice(self.pool())
        if self.kind == "e":
            return rng.choice(self.known)
        n = rng.randrange(14)
        return {
            "boolean": lambda: rng.choice(["true", "false"]),
            "text": lambda: rng.choice([*self.known, literal(f"x{n}"), literal(f'é"{n}')]),
            "text[]": lambda: f"ARRAY['t{n % 4}', 'u{n}']",
            "jsonb": lambda: f"""'{{"beta": {str(n % 2 == 0).lower()}, "n": {n}.0}}'""",
            "integer": lambda: str(n),
            "bigint": lambda: str(n),
            "numeric": lambda: f"{n}.{n % 3}0",
            "timestamp with time zone": lambda: rng.choice(
                ["now() + interval '1 day'", "now() - interval '1 day'", f"'2024-05-{1 + n:02d} 12:00:00Z'"]
                + [f"clock_timestamp() + interval '{rng.randrange(20, 900)} ms'"] * 2
            ),
        }[self.base]()  # fmt: skip


class Table:
    """A table of the app."""

    def __init__(self, name):
        self.name = name
        self.columns = {}
        self.keys = []  # unique keys: lists of names
        self.foreign = []  # composite foreign keys: names here, table, names there
        self.referenced = False
        self.size = 0

    def written(self):
        return [c for c in self.columns.values() if not c.generated]

    def source(self, rng, foreign):
        """One row of what a composite foreign key refers to, whatever is in there now."""
        _, there, columns = foreign
        names = ", ".join(columns)
        return f"(SELECT {names} FROM {there.name} ORDER BY {names} LIMIT 1 OFFSET {rng.randrange(max(1, there.size))})"

    def insert(self, rng, _=False):
        composite = rng.choice(self.foreign) if self.foreign and rng.random() < 0.9 else None
        values = {c.name: c.value(rng) for c in self.written() if not c.nullable or rng.random() < 0.85}
        end = rng.choice(["", " ON CONFLICT DO NOTHING", " ON CONFLICT DO NOTHING", self.upsert(rng)])
        if not composite:
            return f"INSERT INTO {self.name} ({', '.join(values)}) VALUES ({', '.join(values.values())}){end}"
        here, _, there = composite
        values |= {h: f"r.{t}" for h, t in zip(here, there)}
        return f"INSERT INTO {self.name} ({', '.join(values)}) SELECT {', '.join(values.values())} FROM {self.source(rng, composite)} AS r{end}"

    def upsert(self, rng):
        plain = [c.name for c in self.written() if not c.unique]
        if not plain:
            return " ON CONFLICT DO NOTHING"
        return f" ON CONFLICT ({', '.join(rng.choice(self.keys))}) DO UPDATE SET " + ", ".join(f"{n} = excluded.{n}" for n in rng.sample(plain, min(2, len(plain))))

    def which(self, rng):
        """A condition that finds a row, or a few, or seldom all."""
        if rng.random() < 0.04:
            return "true"
        columns = rng.choice(self.keys) if rng.random() < 0.6 else [rng.choice([c.name for c in self.written() if c.unique or c.refers])]
        if len(columns) > 1 and rng.random() < 0.7:
            columns = [rng.choice(columns)]
        if rng.random() < 0.1:
            return f"{columns[0]} IN ({', '.join(rng.choice(self.columns[columns[0]].pool()) for _ in range(4))})"
        return " AND ".join(f"{n} = {rng.choice(self.columns[n].pool())}" for n in columns)

    def update(self, rng, unseen):
        if self.foreign and rng.random() < 0.25:
            composite = rng.choice(self.foreign)
            return f"UPDATE {self.name} SET ({', '.join(composite[0])}) = {self.source(rng, composite)} WHERE {self.which(rng)}"
        # Keys change seldom (most changes of one fail), unless nothing else has done.
        columns = self.written()
        chosen = rng.choices(columns, [9 if c.unique and unseen else 1 if c.unique else 9 if c.used else 3 for c in columns], k=rng.choice([1, 1, 1, 2, 3]))
        values = {c.name: c.value(rng) for c in chosen}
        if rng.random() < 0.05:
            values = {c.name: c.name for c in chosen}
        return f"UPDATE {self.name} SET {', '.join(f'{n} = {v}' for n, v in values.items())} WHERE {self.which(rng)}"

    def delete(self, rng, _):
        return f"DELETE FROM {self.name} WHERE {self.which(rng)}"

    def write(self, rng, thin, unseen, check):
        """One statement, with a check in its middle now and then. thin: few rows are left; unseen: no write has changed a document yet."""
        often = unseen or not self.referenced
        weights = [6 if thin else 2 if often else 1, 6, 0 if thin else 1 if often else 0.15]
        sql = rng.choices([self.insert, self.update, self.delete], weights)[0](rng, unseen)
        return sql + (rng.choice([" RETURNING check_all()", " RETURNING check_all_stable()"]) if check and rng.random() < 0.12 else "")


class App:
    """The tables of the schema, from the catalogs."""

    def __init__(self, control):
        must = control.must
        self.tables = {name: Table(name) for (name,) in must("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1")}
        for table, name, kind, base, nullable, generated, unique in must(
            "SELECT c.relname, a.attname, t.typtype, format_type(CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END, NULL), NOT a.attnotnull, a.attgenerated <> '', "
            " EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL AND a.attnum = ANY (i.indkey)) "
            "FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid JOIN pg_type AS t ON t.oid = a.atttypid "
            "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum"
        ):
            base = {"character varying": "text", "character": "text"}.get(base, base)
            self.tables[table].columns[name] = Column(table, name, kind, base, nullable, generated, unique)
        names = lambda relation, numbers: f"ARRAY(SELECT a.attname::text FROM unnest({numbers}) WITH ORDINALITY AS u(n, i) JOIN pg_attribute AS a ON a.attrelid = {relation} AND a.attnum = u.n ORDER BY u.i)"
        for table, columns in must(f"SELECT c.relname, array_to_string({names('c.oid', 'i.indkey::int2[]')}, ',') FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid "
                "WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique AND i.indpred IS NULL ORDER BY 1, 2"):  # fmt: skip
            self.tables[table].keys.append(columns.split(","))
        for table, here, other, there in must(
            f"SELECT c.conrelid::regclass, array_to_string({names('c.conrelid', 'c.conkey')}, ','), c.confrelid::regclass, array_to_string({names('c.confrelid', 'c.confkey')}, ',') "
            "FROM pg_constraint AS c WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace ORDER BY c.conname"
        ):
            table, other, here, there = self.tables[table], self.tables[other], here.split(","), there.split(",")
            other.referenced = True
            for h, t in zip(here, there):
                table.columns[h].refers = other.columns[t]
            if len(here) > 1:
                table.foreign.append((here, other, there))
        for table in self.tables.values():
            table.size = int(must(f"SELECT count(*) FROM {table.name}")[0][0])
            for column in table.columns.values():
                if column.kind == "e":
                    column.known = [literal(v) for (v,) in must(f"SELECT unnest(enum_range(NULL::account_kind))")]
                elif column.base in ("text", "uuid", "numeric", "integer", "bigint"):
                    column.known = [literal(v) for (v,) in must(f"SELECT DISTINCT {column.name}::text FROM {table.name} WHERE {column.name} IS NOT NULL ORDER BY 1")]


    def restock(self, names):
        """Statements that insert the first rows of tables again, and of what those cannot do without."""
        done = []

        def add(table):
            for column in table.columns.values():
                if column.refers and not column.nullable and column.refers.table != table.name:
                    add(self.tables[column.refers.table])
            if table not in done:
                done.append(table)

        for name in sorted(names):
            add(self.tables[name])
        for table in done:
            columns = [c for c in table.written() if not c.nullable or not any(c.name in here for here, _, _ in table.foreign)]
            # A reference that may be NULL is, where what it refers to is not there.
            there = lambda c: f"(SELECT r.{c.refers.name} FROM {c.refers.table} AS r WHERE r.{c.refers.name} = f.{c.name})" if c.refers and c.nullable else f"f.{c.name}"
            yield (
                f"INSERT INTO {table.name} ({', '.join(c.name for c in columns)}) SELECT {', '.join(map(there, columns))} FROM first.{table.name} AS f ON CONFLICT DO NOTHING"
            )


class Session(Worker):
    """One of the app's connections."""

    def __init__(self, test, number):
        super().__init__(test, number)
        self.must("SET lock_timeout = '400ms'; SET client_min_messages = warning; SET statement_timeout = '30s'")
        self.apply_settings()

    def write(self, check=True):
        table = self.test.table()
        return table, Step(table.write(self.rng, table.name in self.test.thin, table.name in self.test.unseen(), check))

    def look(self):
        if self.chance(0.05):
            return Step("SELECT user_id, problem FROM profile_cache.verify()", "verify")
        if self.chance(0.1):
            return Step(self.of(["SELECT check_all()", "SELECT check_all_stable()"]), "check")
        return Step(ORACLE.by_view if self.settings is PINNED and self.chance(0.5) else ORACLE.by_function, "oracle")

    # Programs

    def transaction(self):
        isolation = self.rng.choices(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"], [5, 4, 2])[0]
        if self.chance(0.2):
            yield self.write()[1]
            yield self.look()
            return
        yield Step(f"BEGIN ISOLATION LEVEL {isolation}")
        if self.chance(0.2):
            yield Step(f"SET LOCAL profile_cache.max_immediate = {self.rng.randrange(0, 4)}")
        if self.chance(0.3):
            yield Step("SET CONSTRAINTS ALL DEFERRED")
        savepoints = 0
        for _ in range(self.of([1, 1, 2, 2, 3, 4, 6])):
            choice = self.rng.random()
            if choice < 0.12:
                result = yield Step(f"SAVEPOINT p{savepoints + 1}")
                savepoints += result.ok
            elif choice < 0.2 and savepoints:
                result = yield Step(f"ROLLBACK TO p{savepoints}")
            elif choice < 0.35:
                result = yield self.look()
            else:
                # In one snapshot, what differs between two looks is what was written in between.
                before = None
                table, step = self.write(check=isolation == "READ COMMITTED")
                if isolation != "READ COMMITTED" and (table.name in self.test.unseen() or self.chance(0.5)):
                    result = yield Step(DOCUMENTS)
                    before = result.rows
                result = yield step
                if result.ok and isolation != "READ COMMITTED":
                    result = yield from self.doubt()
                if result.ok and before:
                    result = yield Step(DOCUMENTS)
                    self.test.effects[table.name] += result.ok and result.rows != before
            if not result.ok:
                if not (savepoints and self.chance(0.7)):
                    break
                result = yield Step(f"ROLLBACK TO p{savepoints}")
            if result.ok and self.chance(0.3):
                result = yield self.look()
        if self.pg.transaction_status != pq.TransactionStatus.INTRANS or self.chance(0.12):
            yield Step("ROLLBACK;")
        elif self.chance(0.06) and len(self.test.prepared) < 2:
            name = f"p{self.test.number}"
            result = yield Step(f"PREPARE TRANSACTION '{name}'")
            if result.ok and "PREPARE" in result.tag:
                self.test.prepared.append(name)
        else:
            yield Step("COMMIT")
        self.doubtful = False
        yield self.look()

    def probe(self):
        """One write to a table that has had no luck yet, in a snapshot of its own."""
        yield Step("BEGIN ISOLATION LEVEL REPEATABLE READ")
        before = yield Step(DOCUMENTS)
        table, step = self.write(check=False)
        result = yield step
        if result.ok:
            result = yield from self.doubt()
        if result.ok and before.ok:
            result = yield Step(DOCUMENTS)
            self.test.effects[table.name] += result.ok and result.rows != before.rows
            yield self.look()
        yield Step("COMMIT" if self.pg.transaction_status == pq.TransactionStatus.INTRANS else "ROLLBACK;")
        self.doubtful = False

    def reader(self):
        """A snapshot that is kept while the others go on."""
        yield Step(f"BEGIN ISOLATION LEVEL {self.of(['REPEATABLE READ', 'SERIALIZABLE'])}{self.of(['', ' READ ONLY'])}")
        for _ in range(self.rng.randrange(2, 7)):
            result = yield self.look()
            if not result.ok:
                break
        yield Step("ROLLBACK;")

    def refresh(self):
        yield Step(f"CALL profile_cache.refresh({self.of([1, 3, 5000])})")
        yield self.look()

    def restock(self):
        """The rows that there were at first, where rows are few: writers at random delete more than they insert."""
        for sql in self.test.app.restock(self.test.thin):
            yield Step(sql)
        yield self.look()

    def truncate(self):
        table = self.of([t for t in self.test.app.tables.values() if not t.referenced])
        yield Step("BEGIN ISOLATION LEVEL READ COMMITTED")
        result = yield Step(f"TRUNCATE {table.name}")
        if result.ok:
            result = yield self.look()
        if result.ok:
            result = yield Step(table.insert(self.rng))
        if result.ok and self.chance(0.5):
            yield Step("COMMIT", upheaval=True, patient=True)
        else:
            yield Step("ROLLBACK;")


class Test(Scheduler):
    def __init__(self, options):
        super().__init__(ORACLE, options)
        self.view = pathlib.Path(options.view).read_text()
        self.effects = collections.Counter()  # by table: writes that changed a document
        self.late = False  # the time is over, but not all tables have had luck
        self.thin = set()  # tables that have lost many of their rows

    def set_up(self):
        self.control = Connection(self, "control")
        must = self.control.must
        must("SET client_min_messages = warning")
        for k, v in PINNED.items():
            must(f"SET {k} = {literal(v) if k != 'DateStyle' else v}")
        self.app = App(self.control)
        must("CREATE SCHEMA first; " + "; ".join(f"CREATE TABLE first.{t} AS TABLE {t}" for t in self.app.tables))
        must(self.view)
        self.used = collections.defaultdict(set)
        for table, column, whole_rows in must(USED):
            self.used[table].add(column)
            self.whole_rows = whole_rows == "t"
            for c in self.app.tables[table].columns.values():
                c.used = c.used or self.whole_rows or c.name == column
        keys = ((t, ", ".join(k)) for t in self.used for k in self.app.tables[t].keys)
        self.twice = "SELECT " + " OR ".join(f"EXISTS (SELECT FROM {t} GROUP BY {k} HAVING count(*) > 1)" for t, k in keys)
        must(f"SELECT profile_cache.attach('{PROFILE}', key => '{KEY}', document => '{VIEW}')")
        followed = {name.removeprefix("public.") for (name,) in must("SELECT unnest(tables) FROM profile_cache.status")}
        if followed != set(self.used):
            raise Failed(f"attach() follows {sorted(followed)}, the view reads {sorted(self.used)}")
        must(ORACLE.functions)
        must("CALL profile_cache.refresh()")
        self.expect_cached("after attach and refresh")
        self.sessions = [Session(self, n) for n in range(1, 5)]

    def expect_cached(self, when):
        """Every profile is served from the cache, but for one whose time has just passed, and equals the view."""
        rows = self.control.must(ORACLE.by_view)
        wrong = [r for r in rows if r[3] != r[4] or (r[1] != "cache" and r[2] != "expired")]
        if wrong or not any(r[1] == "cache" for r in rows):
            raise Failed(f"{when}: key, served from, why, got, expected: {wrong or rows}\n{self.evidence(self.control)}")
        if problems := self.control.must("SELECT * FROM profile_cache.verify()"):
            raise Failed(f"{when}: verify(): {problems}")

    def glance(self, sql):
        """What the control connection sees, or nothing while TRUNCATE has the table: nobody else can go on while it waits."""
        result = self.control.run(f"SET lock_timeout = '20ms'; {sql}; RESET lock_timeout")
        if not result.ok and result.state != "55P03":
            raise Failed(f"control: {sql}\n{result.state} {result.message}")
        return result.rows

    def table(self):
        """A table to write to: mostly one that the view reads, and one whose route has not been seen at work."""
        tables = list(self.app.tables.values())
        weight = lambda t: (0.01 if self.late else 0.3) if t.name not in self.used else (0 if self.late else 2) + 6 / (1 + self.effects[t.name]) ** (1 + self.late)
        return self.rng.choices(tables, [weight(t) for t in tables])[0]

    def choose_program(self, session):
        choices = [(70, session.transaction), (6, session.reader), (14, session.refresh), (0.5, session.truncate), (5 if self.thin else 0, session.restock)]
        if self.late:
            choices.append((150, session.probe))
        weights, programs = zip(*choices)
        return self.rng.choices(programs, weights)[0]()

    def judge(self, session):
        super().judge(session)
        # Whatever has just been committed is looked at from outside, too.
        if session.step.sql == "COMMIT" and session.result.ok and self.rng.random() < 0.3:
            self.counts["checks"] += 1
            for key, source, reason, got, wanted in self.glance(ORACLE.by_view):
                self.counts["hits"] += source == "cache"
                if source != "cache":
                    self.misses[reason] += 1
                if got != wanted:
                    raise Failed(f"get_profile({key}) differs from the view after {session.name}'s COMMIT (served from {source}: {reason})\n"
                                 f"got      {got}\nexpected {wanted}\n{self.evidence(self.control, key)}")  # fmt: skip

    def unseen(self):
        return [t for t in self.used if not self.effects[t]]

    def run(self):
        begin, next_count = time.monotonic(), 0
        # A little longer, where a table has had no luck yet.
        while (passed := time.monotonic() - begin) < self.seconds or (self.unseen() and passed < 10 * self.seconds + 10):
            self.late = passed >= self.seconds
            self.collect(0)
            if self.prepared and self.rng.random() < 0.05:
                self.resolve()
            if self.number >= next_count:
                next_count = self.number + 100
                counts = self.glance(" UNION ALL ".join(f"SELECT '{t.name}', count(*) < {0.7 * t.size} FROM {t.name}" for t in self.app.tables.values()))
                self.thin = {name for name, few in counts if few == "t"}
            self.turn(self.sessions)
        self.wind_up()

    def finish(self):
        must = self.control.must
        for sql in self.app.restock([PROFILE]):
            must(sql)
        for _ in range(10):
            must("CALL profile_cache.refresh(3)", 120)
            if must("SELECT count(*) FROM profile_cache.pending") == [["0"]]:
                break
        self.expect_cached("at the end")
        if not self.whole_rows:
            self.expect_indifference()
        wrong = []
        for sql, wanted in {
            "SELECT * FROM profile_cache.pending": [],
            "SELECT * FROM profile_cache.failure": [],
            "SELECT disabled_triggers, held_up_by, failures, pending_keys, pending_epochs FROM profile_cache.status": [["{}", "{}", "0", "0", "0"]],
        }.items():
            if (found := must(sql)) != wanted:
                wrong.append(f"at the end: {sql}\n  {found}")
        looks = self.counts["hits"] + sum(self.misses.values())
        if self.counts["hits"] < min(0.1 * looks, 50) or not looks:
            wrong.append(f"only {self.counts['hits']} of {looks} reads came from the cache: this shows nothing")
        if self.unseen():
            wrong.append(f"no write to {', '.join(self.unseen())} ever changed a document: this shows nothing")
        if wrong:
            vacuous = all(what.endswith("this shows nothing") for what in wrong)
            raise (Vacuous if vacuous else Failed)("\n".join(wrong))

    def expect_indifference(self):
        """Columns that the view does not use, and that tie nothing, distrust nothing."""
        must = self.control.must
        served = f"SELECT count(*) FROM {PROFILE} AS p WHERE profile_cache.explain(p.{KEY})->>'served_from' = 'cache'"
        for table, columns in self.used.items():
            for column in self.app.tables[table].written():
                if column.used or column.refers or column.unique:
                    continue
                if any(c.generated and c.name in columns for c in self.app.tables[table].columns.values()):
                    continue  # the generated column may change with it
                before = must(f"BEGIN; {served}")
                changed = self.control.run(f"UPDATE {table} SET {column.name} = {column.value(self.rng)} RETURNING 1")
                after = must(served) if changed.ok else None
                must("ROLLBACK")
                if changed.state == "23505":
                    continue  # a partial unique index goes by it
                if not changed.ok:
                    raise Failed(f"{table}.{column.name}: {changed.state} {changed.message}")
                if changed.rows and before != after:
                    raise Failed(f"{table}.{column.name} is not used by the view, but its change leaves {after[0][0]} profiles cached where {before[0][0]} were")

    def figures(self):
        c, looks = self.counts, self.counts["hits"] + sum(self.misses.values())
        print(
            f"{c['transactions']} transactions ({c['prepared']} prepared), {c['statements']} statements, {c['refreshes']} refreshes, {c['verifies']} verify(); "
            f"{looks} documents compared, {c['hits'] / max(1, looks):.0%} from the cache; {c['excused']} excused; "
            f"SQLSTATEs: {', '.join(f'{k} {v}' for k, v in self.states.most_common()) or 'none'}\n"
            f"writes that changed a document: {', '.join(f'{t} {self.effects[t]}' for t in sorted(self.used))}"
        )


if __name__ == "__main__":
    main(Test(arguments(__doc__, "view")))
