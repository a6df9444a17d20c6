"""Random views over random tables, attached and under random writes: is any document stale?

    tests/.venv/bin/pytest tests/catalogue/test_generator.py                          less than a minute
    tests/.venv/bin/pytest tests/catalogue/test_generator.py --seed 7 --seconds 3600  other views, for an hour

A schema (random_schema.py) serves some views (random_view.py). One that attach() refuses is counted, by what it says.
One that it accepts is put under random writes (random_writes.py), in transactions, with savepoints, cascades and
refreshes in between, and after each the oracle asks in one snapshot: is get_profile() what the view gives, for every
profile? It asks in a second session as well, in an older snapshot or with writes of its own under way. Everything
follows from the seeds of the schema and of the view. A view that fails leaves a script that shows it, for psql or
`--replay`; those that failed once are kept in tests/catalogue/found, since the seeds mean other views once a line of
the grammar has changed.

A test that cannot fail shows nothing: it fails, too, where too few views are accepted, too few of them had a document
changed by a write, or too few of the changed documents were served from the cache.
"""

import argparse
import collections
import json
import pathlib
import random
import re
import signal
import sys
import time

from psycopg import OperationalError, pq

from catalogue.random_schema import KEY, PROFILE, Schema
from catalogue.random_view import View
from catalogue.random_writes import Writes
from lib.cluster import OUTPUT
from lib.command import Failed
from lib.sessions import EXPECTED, PINNED, Connection, literal

# What the app's own statements may meet, beside what concurrent ones do: a domain's CHECK, a row that a cascade has
# changed in the middle of the statement, TRUNCATE where deferred triggers wait.
ALLOWED = EXPECTED | {"23514", "27000", "55006"}
OTHER = "-- in another session: "
CHECKED = f"""CREATE FUNCTION checked() RETURNS TABLE (uid uuid, source text, reason text, got text, wanted text) LANGUAGE sql STABLE AS $$
    SELECT {KEY}, e.e->>'served_from', e.e->>'reason', get_profile({KEY})::text, v.document::text
      FROM {PROFILE} AS p FULL JOIN document AS v USING ({KEY}) CROSS JOIN LATERAL (SELECT profile_cache.explain({KEY}) AS e) AS e $$"""
CHECK = "SELECT * FROM checked() WHERE got IS DISTINCT FROM wanted"
SETTINGS = "; ".join(f"SET {k} = {literal(v) if k != 'DateStyle' else v}" for k, v in PINNED.items())
SESSION = f"SET search_path = app, shared; SET client_min_messages = error; SET lock_timeout = '30ms'; SET statement_timeout = '20s'; SET check_function_bodies = off; {SETTINGS}"


class Wrong(Failed):
    """A view with a stale document, or something else that must not be."""


class Generator:
    def __init__(self, conninfo):
        self.conninfo, self.warnings = conninfo, collections.Counter()
        self.counts, self.refusals, self.invalid = collections.Counter(), collections.Counter(), collections.Counter()
        self.states, self.shapes, self.accepted_shapes = collections.Counter(), collections.Counter(), collections.Counter()
        self.last = collections.Counter()  # why documents were not served from the cache after a view's last refreshes
        self.stop = False
        self.script, self.made = [], None
        self.connect()

    def connect(self):
        self.a, self.b = Connection(self, "a"), Connection(self, "b")
        for c in (self.a, self.b):
            c.must(SESSION)

    # Statements

    def do(self, sql, on=None, allowed=ALLOWED):
        """Runs a statement of the view's story."""
        on = on or self.a
        result = self.told_to(on, sql)
        if result.state:
            self.states[result.state] += 1
            if result.state not in allowed:
                raise Wrong(f"{sql}\n{result.state} {result.message}")
        return result

    def told_to(self, on, sql, shown=None):
        """Runs a statement, and notes for the script what was run, or what is shown for it, and how it ended."""
        self.script.append([OTHER if on is self.b else "", shown or sql, ""])
        result = on.run(sql)
        self.script[-1][2] = f"  -- {result.state}" if result.state else ""
        return result

    def check(self, on=None):
        """The oracle: what there is now, by key: document, where it was served from."""
        result = self.told_to(on or self.a, "SELECT * FROM checked()", CHECK)
        if not result.ok:
            raise Wrong(f"checked(): {result.state} {result.message}")
        self.counts["checks"] += 1
        now = {}
        for key, source, reason, got, wanted in result.rows:
            self.counts["reads"] += 1
            self.counts["hits"] += source == "cache"
            if got != wanted:
                raise Wrong(f"get_profile({key}) is not what the view gives; served from {source}: {reason}\ngot      {got}\nexpected {wanted}")
            now[key] = (wanted, source if source == "cache" else reason)
        return now

    # A schema

    def make(self, seed):
        """The tables of a seed, filled; self.filling puts the same rows there again."""
        # PostgreSQL 18 refuses such foreign keys.
        mixed = int(self.a.must("SHOW server_version_num")[0][0]) < 180000
        self.schema = Schema(seed, mixed)
        self.a.must("DROP SCHEMA IF EXISTS app CASCADE; CREATE SCHEMA app")
        self.setup = list(self.schema.ddl())
        for sql in self.setup:
            self.a.must(sql)
        self.a.must(CHECKED)
        self.schema.fill_rows(lambda sql: self.a.run(sql).ok)
        self.empty = "; ".join(f"DELETE FROM {n}" for n in self.schema.tables)
        # The same values each time, whatever the INSERTs found there.
        copies = []
        for name, table in self.schema.tables.items():
            columns = ", ".join(table.columns)
            self.a.must(f"CREATE SCHEMA IF NOT EXISTS first; DROP TABLE IF EXISTS first.{name}; CREATE TABLE first.{name} AS TABLE {name}")
            copies.append(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM first.{name}")
        self.filling = "; ".join(copies)
        self.made = seed
        self.counts["schemas"] += 1

    def refill(self):
        self.a.must(f"BEGIN; SET LOCAL session_replication_role = replica; {self.empty}; {self.filling}; COMMIT")

    # A view

    def view(self, schema, seed):
        """One view: whether it was accepted."""
        if self.made != schema:
            self.make(schema)
        made = View(self.schema, f"{schema} {seed}")
        statements = made.statements()
        text = ";\n".join(statements)
        self.script, attached = [], False
        self.refill()
        self.counts["views"] += 1
        try:
            for sql in statements:
                result = self.a.run(sql)
                if not result.ok:
                    self.invalid[f"{result.state} {result.message[:90]}"] += 1
                    return False
            if not (result := self.a.run("SELECT * FROM document")).ok:
                self.invalid[f"raises {result.state} {result.message[:90]}"] += 1
                return False
            self.shapes.update(made.shapes)
            result = self.a.run(f"SELECT profile_cache.attach('{PROFILE}', key => '{KEY}', document => 'document')")
            if not result.ok:
                said = re.sub(r"\b(s|p|d|m|k|a|l|w|e|f)\d+\b|\b(dim|mem|kid|nested)\d\w*\b|person_\w+|\bpublic\.", "…", result.message.split(" | ")[0])
                self.refusals[f"{result.state} {said[:150]}"] += 1
                if result.state in ("XX000", "lost") or result.state.startswith("XX"):
                    raise Wrong(f"attach(): {result.state} {result.message}")
                return False
            attached = True
            self.counts["accepted"] += 1
            self.accepted_shapes.update(made.shapes)
            # What should rather have been refused is looked at for longer.
            self.story(random.Random(f"story {schema} {seed}"), text, 3 if any(s.startswith("!") for s in made.shapes) else 1)
            return True
        except (Wrong, OperationalError) as wrong:
            said = Wrong(f"{', '.join(sorted(made.shapes))}:\n{text}\n{wrong}")
            said.script = self.told(statements)
            raise said from None
        finally:
            self.clear(statements, attached)

    def told(self, statements):
        """The script of what has happened."""
        if self.a.pg.status != pq.ConnStatus.OK:
            time.sleep(5)  # the server recovers
            self.connect()
        self.a.run("ROLLBACK")
        rows = []
        for name, table in self.schema.tables.items():
            columns = ", ".join(table.columns)
            values = self.a.run(f"SELECT {', '.join(f'quote_nullable({c})' for c in table.columns)} FROM first.{name}").rows
            rows += [f"INSERT INTO {name} ({columns}) VALUES ({', '.join(v)})" for v in values]
        attach = f"SELECT profile_cache.attach('{PROFILE}', key => '{KEY}', document => 'document')"
        before = [*self.extensions, "CREATE SCHEMA app", SESSION, *self.setup, CHECKED, "SET session_replication_role = replica", *rows, "SET session_replication_role = origin"]
        return "\n\n".join([f"{line};" for line in [*before, *statements, attach]] + [f"{other}{sql};{state}" for other, sql, state in self.script])

    def clear(self, statements, attached):
        for c in (self.a, self.b):
            if c.pg.transaction_status != pq.TransactionStatus.IDLE:
                c.run("ROLLBACK")
        names = [re.match(r"CREATE VIEW (\w+)", sql)[1] for sql in statements]
        # Mostly the columns stay, which is faster; what is in them belongs to another view then.
        if attached:
            self.a.run(f"SELECT profile_cache.detach(drop_columns => {self.counts['views'] % 8 == 0})")
        result = self.a.run(f"DROP VIEW IF EXISTS {', '.join(names)}")
        if not result.ok:
            raise Wrong(f"after the view: {result.state} {result.message}")

    def story(self, rng, text, times):
        """Writes, and looks at what is served."""
        self.writes = Writes(self.schema, rng, text)
        self.do("CALL profile_cache.refresh()")
        seen = self.check()
        self.counts["views with hits"] += any(source == "cache" for _, source in seen.values())
        first, old, truncated, effects, fresh = seen, None, False, 0, 0
        for _ in range(times * rng.randint(12, 20)):
            if old is None and rng.random() < 0.15:
                old = rng.choice(["reads", "reads", "writes"])
                self.do("BEGIN ISOLATION LEVEL REPEATABLE READ" if old == "reads" else "BEGIN", self.b)
                self.check(self.b) if old == "reads" else self.do(self.writes.write(truncate=False), self.b)
                truncated = False
            truncated |= self.transaction(rng)
            before, seen = seen, self.check()
            changed = {k for k in seen.keys() | before.keys() if seen.get(k, [None])[0] != before.get(k, [None])[0]}
            effects += bool(changed)
            self.writes.seen(changed)
            if old and rng.random() < 0.4:
                failed = self.b.pg.transaction_status == pq.TransactionStatus.INERROR
                # TRUNCATE leaves an older snapshot an empty table.
                if not failed and not (truncated and old == "reads"):
                    self.check(self.b)
                self.do("ROLLBACK" if failed or rng.random() < 0.2 else "COMMIT", self.b)
                old = None
                seen = self.check()
            stale = sum(source != "cache" for _, source in seen.values())
            if stale > len(seen) / 2 or (stale and rng.random() < 0.4):
                self.do(f"CALL profile_cache.refresh({rng.choice([1, 3, 5000])})")
                seen = self.check()
            fresh += any(source == "cache" and first.get(k, [None])[0] != d for k, (d, source) in seen.items())
            if rng.random() < 0.03 and seen:
                self.do(rng.choice([f"SELECT profile_cache.invalidate('{rng.choice(sorted(seen))}')", "SELECT profile_cache.invalidate_all()"]))
        if old:
            self.do("ROLLBACK", self.b)
        for times in range(4):
            self.do("CALL profile_cache.refresh()")
            left = collections.Counter(source for _, source in self.check().values() if source != "cache")
            if not left:
                break
            self.last[f"{times}: {sorted(left)}"] += 1
        else:
            raise Wrong(f"not served from the cache after {times + 1} refreshes: {left}")
        self.counts["views changed"] += effects > 0
        self.counts["views changed and cached"] += fresh > 0
        self.counts["changes seen"] += effects

    def transaction(self, rng):
        """One or some writes, committed or not: whether TRUNCATE was among them."""
        if rng.random() < 0.55:
            return any([self.write() for _ in range(rng.choice([1, 1, 1, 2, 3]))])
        truncated = False
        self.do(f"BEGIN ISOLATION LEVEL {rng.choice(['READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'])}")
        if rng.random() < 0.3:
            self.do("SET CONSTRAINTS ALL DEFERRED")
        if rng.random() < 0.15:
            self.do(f"SET LOCAL profile_cache.max_immediate = {rng.randint(0, 2)}")
        for _ in range(rng.choice([1, 2, 2, 3, 4])):
            truncated |= self.write(savepoint=True)
            if rng.random() < 0.25:
                self.check()
            if rng.random() < 0.2:
                self.do("ROLLBACK TO s")
                if rng.random() < 0.2:
                    self.check()
        self.do("ROLLBACK" if rng.random() < 0.1 else "COMMIT")
        return truncated

    def write(self, savepoint=False):
        """A write that finds a row, if there is one in a few: whether it was TRUNCATE."""
        for _ in range(6):
            if savepoint:
                self.do("SAVEPOINT s")
            sql = self.writes.write()
            result = self.do(sql)
            if not result.ok and savepoint:
                self.do("ROLLBACK TO s")
            if result.ok and not result.tag.endswith(" 0"):
                self.counts["writes"] += 1
                break
        return result.ok and sql.startswith("TRUNCATE")

    # Long runs

    def prepare(self):
        """An empty database gets the extension, and citext or what stands for it where there is none."""
        citext = self.a.must("SELECT FROM pg_available_extensions WHERE name = 'citext'")
        self.extensions = [
            "CREATE SCHEMA shared", "CREATE EXTENSION profile_cache SCHEMA shared", "CREATE EXTENSION citext SCHEMA shared" if citext else "CREATE DOMAIN shared.citext AS text",
        ]  # fmt: skip
        for sql in self.extensions:
            self.a.must(sql)

    def look_at(self, schema, number, go_on):
        """One view; where it fails, its script is kept, and others may follow."""
        try:
            self.view(schema, number)
        except Wrong as wrong:
            path = OUTPUT / f"generator_{schema}_{number}.sql"
            path.write_text(wrong.script)
            said = f"{wrong}\nschema {schema}, view {number}; what led to it: {path}"
            if not go_on:
                raise Failed(said) from None
            self.counts["failed"] += 1
            print(said, flush=True)
            self.a.pg.finish()
            self.b.pg.finish()
            self.connect()

    def run(self, seed, step, seconds, views, go_on):
        """Views until the time is over, so many of each schema."""
        self.prepare()
        begin = time.monotonic()
        over = lambda: self.stop or time.monotonic() - begin >= seconds
        while not over():
            for number in range(views):
                if over():
                    break
                self.look_at(seed, number, go_on)
            seed += step
        self.counts["seconds"] = round(time.monotonic() - begin)

    def replay(self, script):
        """A script that a failing view has printed."""
        tables_are_there = False
        for told in script.strip().split("\n\n"):
            sql = re.sub(r";(  -- \w{5})?$", "", told.removeprefix(OTHER))
            result = (self.b if told.startswith(OTHER) else self.a).run(sql)
            attaching = "profile_cache.attach" in sql
            if attaching and not result.ok:
                print(f"refused: {result.message}")
                return
            if not result.ok and result.state not in (ALLOWED if tables_are_there else ()):
                raise Failed(f"{sql}\n{result.state} {result.message}")
            if sql == CHECK and result.rows:
                raise Failed(f"{told}\n{result.rows}")
            tables_are_there |= attaching

    def figures(self):
        told = {name: getattr(self, name) for name in ("counts", "refusals", "invalid", "states", "shapes", "accepted_shapes", "last")}
        print(json.dumps(told))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dbname", required=True)
    parser.add_argument("--seed", type=int, default=1, help="of the first schema; the others follow")
    parser.add_argument("--step", type=int, default=1, help="from one schema's seed to the next")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--views", type=int, default=25, help="of each schema")
    parser.add_argument("--go-on", action="store_true", help="after a view that fails, too")
    parser.add_argument("--view", type=int, help="this view of this schema alone")
    parser.add_argument("--replay", help="a script that a failing view has printed")
    options = parser.parse_args()
    test = Generator(f"dbname={options.dbname}")
    signal.signal(signal.SIGTERM, lambda *_: setattr(test, "stop", True))
    try:
        if options.replay:
            test.replay(pathlib.Path(options.replay).read_text())
        elif options.view is not None:
            test.prepare()
            test.look_at(options.seed, options.view, False)
        else:
            test.run(options.seed, options.step, options.seconds, options.views, options.go_on)
    except Failed as failure:
        print(failure)
        sys.exit(1)
    finally:
        test.figures()


if __name__ == "__main__":
    main()
