"""Concurrent transactions at random, from a seed, checked against the view.

    tests/.venv/bin/pytest tests/stress --seed 7 --seconds 600

One process drives several connections: it sends one statement on one of them, waits until that
has ended or waits for a lock, and goes on with another. What is sent and in which order comes
from the seed, so a failure repeats as far as lock waits and the clock let it (one step in a few
is not waited for, on odd seeds, so that statements also overlap within themselves).

The oracle: in one statement, for every profile, get_profile() and the document view read as the
owner under the pinned settings are the same text. It is asked all the time, by other sessions and
in the middle of transactions, statements and triggers. An app may not see anything else either:
SQLSTATEs that its own statements could not have raised without us fail the test.

Not held against us is what no trigger can promise: TRUNCATE and a changed view are not MVCC, so
snapshots from before their commit are not judged (counted as "excused").
"""

import time

from psycopg import pq

from lib.command import Failed
from lib.sessions import EXPECTED, PINNED, Connection, Oracle, Scheduler, Step, Worker, arguments, literal, main

PROFILES, KEYS, SUBSCRIPTIONS, USER_ROLES = 12, 16, 20, 26
PLANS = ["free", "pro", "team", "edu"]
STATES = ["active", "trialing", "canceled", "past_due"]
TABLES = ["user_profile", "user_subscription", "subscription_plan", "user_role", "role"]
MEMBERS = ["user_subscription", "user_role"]


class Schema:
    """The conventional tables in one of many forms."""

    def __init__(self, rng):
        self.pk = rng.choice(["bigint", "uuid", "key"])
        self.pk_column = "supabase_user_id" if self.pk == "key" else "id"
        # The members may refer to different columns of the profile.
        self.role_refers = rng.choice([self.pk_column, "supabase_user_id"])
        self.role_id = rng.choice(["int", "text", "numeric"])
        self.null_key = self.pk != "key" and rng.random() < 0.3
        self.user_role_key = rng.choice(["id", "pair"])
        self.one_subscription = rng.random() < 0.3
        self.foreign = {
            name: f"ON DELETE {rng.choice(delete)} ON UPDATE {rng.choice(['CASCADE', 'CASCADE', 'NO ACTION'])} {deferrable}"
            for name, delete in {
                "subscription": ["CASCADE", "CASCADE", "SET NULL"],
                "user_role": ["CASCADE", "CASCADE", "NO ACTION"],
                "plan": ["SET NULL", "CASCADE", "NO ACTION"],
                "role": ["CASCADE", "NO ACTION"],
            }.items()
            for deferrable in [rng.choice(["", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"])]
        }
        self.touch = rng.random() < 0.4  # an AFTER ROW trigger on a member writes the profile
        self.grant = rng.random() < 0.4  # a BEFORE ROW trigger on the profile writes a member
        self.meddle = rng.random() < 0.4  # a BEFORE ROW trigger behind ours writes our columns
        self.brin = rng.random() < 0.3
        self.preloaded = rng.random() < 0.8

    def __str__(self):
        return ", ".join(f"{k}: {v}" for k, v in vars(self).items())

    def key(self, i):
        return f"'00000000-0000-4000-8000-{i:012d}'"

    def primary(self, i):
        return str(i) if self.pk == "bigint" else self.key(i) if self.pk == "key" else f"'aaaaaaaa-0000-4000-8000-{i:012d}'"

    def role_user(self, i):
        return self.primary(i) if self.role_refers == self.pk_column else self.key(i)

    def role(self, i):
        return f"'r{i}'" if self.role_id == "text" else str(i)

    def sql(self):
        key_null = "" if self.null_key else "NOT NULL"
        key = "supabase_user_id uuid PRIMARY KEY" if self.pk == "key" else f"id {self.pk} PRIMARY KEY, supabase_user_id uuid {key_null} UNIQUE"
        pk_type = "uuid" if self.pk == "key" else self.pk
        refers_type = "uuid" if self.role_refers == "supabase_user_id" else pk_type
        user_role = "id int PRIMARY KEY, " if self.user_role_key == "id" else ""
        pair = "" if self.user_role_key == "id" else ", PRIMARY KEY (user_id, role_id)"
        return f"""
CREATE FUNCTION squeezed(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower(left($1, 20));
CREATE TABLE user_profile ({key}, email text, display_name text, login_count int DEFAULT 0, weight float8, span interval,
    born date, raw bytea, amount numeric, prefs jsonb, created_at timestamptz, seen_at timestamp, api_token text, note text, visits int DEFAULT 0);
CREATE INDEX ON user_profile (login_count);
CREATE INDEX ON user_profile (squeezed(email));
CREATE INDEX ON user_profile (visits) WHERE visits > 3;
{"CREATE INDEX ON user_profile USING brin (created_at);" if self.brin else ""}
CREATE TABLE subscription_plan (id text PRIMARY KEY, display_name text, ai_daily_limit int, features jsonb, price numeric);
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id {pk_type} REFERENCES user_profile {self.foreign["subscription"]},
    plan_id text REFERENCES subscription_plan {self.foreign["plan"]}, status text, current_period_end timestamptz, price numeric
    {", UNIQUE (user_id)" if self.one_subscription else ""});
CREATE INDEX ON user_subscription (user_id);
CREATE TABLE role (id {self.role_id} PRIMARY KEY, name text UNIQUE, permissions jsonb, comment text);
CREATE TABLE user_role ({user_role}user_id {refers_type} REFERENCES user_profile ({self.role_refers}) {self.foreign["user_role"]},
    role_id {self.role_id} REFERENCES role {self.foreign["role"]}, granted_at timestamptz DEFAULT now(){pair});
CREATE TABLE app_history (at timestamptz DEFAULT clock_timestamp(), what text);
INSERT INTO subscription_plan SELECT p, initcap(p) || ' Plan', 10 * n, jsonb_build_object('n', n, 'x', 1.00), n FROM unnest({PLANS!r}::text[]) WITH ORDINALITY AS u(p, n);
INSERT INTO role VALUES {", ".join(f"({self.role(i)}, 'role{i}', '[{i}]', NULL)" for i in range(1, 5))};
""".replace(repr(PLANS), "ARRAY" + repr(PLANS))

    CHECKS = """
CREATE FUNCTION app_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('app.watchful', true) = 'on' THEN PERFORM public.check_all(); END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE FUNCTION app_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.user_profile AS p SET login_count = p.login_count + 1 WHERE p.PK = NEW.user_id;
    PERFORM public.check_all();
    INSERT INTO public.app_history (what) VALUES ('touched');
    RETURN NULL;
END $$;
CREATE FUNCTION app_price(k uuid) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    UPDATE public.user_subscription AS s SET status = CASE s.status WHEN 'active' THEN 'trialing' ELSE 'active' END
      FROM public.user_profile AS p WHERE p.supabase_user_id = k AND s.user_id = p.PK;
    PERFORM public.check_all();
    RETURN 1;
END $$;
CREATE FUNCTION app_grant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.login_count % 3 = 1 THEN
        PERFORM public.app_price(OLD.supabase_user_id);
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION app_meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.visits % 2 = 1 THEN
        NEW.cached_profile = '{"meddled": true}';
        NEW.cached_profile_epoch = (SELECT max(p.cached_profile_epoch) FROM public.user_profile AS p);
        NEW.profile_cache_updated_at = '2001-01-01';
    END IF;
    RETURN NEW;
END $$;
"""

    def checks(self):
        triggers = "".join(
            f"CREATE TRIGGER {place}_{when}_{level} {when} INSERT OR UPDATE OR DELETE ON {table} FOR EACH {level} EXECUTE FUNCTION app_check();\n"
            for table in TABLES
            for place, when, level in [("aa", "BEFORE", "ROW"), ("aa", "AFTER", "ROW"), ("aa", "AFTER", "STATEMENT"), ("zz", "AFTER", "STATEMENT"), ("zz", "BEFORE", "STATEMENT")]
        )
        if self.touch:
            triggers += "CREATE TRIGGER zz_touch AFTER INSERT ON user_subscription FOR EACH ROW EXECUTE FUNCTION app_touch();\n"
        if self.grant:
            triggers += "CREATE TRIGGER aa_grant BEFORE UPDATE ON user_profile FOR EACH ROW EXECUTE FUNCTION app_grant();\n"
        if self.meddle:
            triggers += "CREATE TRIGGER zzz_meddle BEFORE UPDATE ON user_profile FOR EACH ROW EXECUTE FUNCTION app_meddle();\n"
        return ORACLE.functions + self.CHECKS.replace("p.PK", "p." + self.pk_column) + triggers


ORACLE = Oracle("user_profile", "supabase_user_id", "profile_document")
ORACLE_FUNCTION, ORACLE_VIEW = ORACLE.by_function, ORACLE.by_view


class Session(Worker):
    """An app's connection, with all that an app may do."""

    def __init__(self, test, number):
        super().__init__(test, number)
        self.schema = test.schema
        self.superuser = number != 2
        self.must("SET lock_timeout = '1500ms'; SET client_min_messages = warning; SET statement_timeout = '30s'")
        if not self.superuser:
            self.must("SET SESSION AUTHORIZATION app_writer")
        self.apply_settings()

    # Choices

    def text(self):
        return literal(self.of(["", "x", "Zoë", 'a"b\\c']) + str(self.rng.randrange(1000)))

    def profile(self):
        # One at a time is everybody's, or sessions would seldom meet.
        return self.test.hot if self.chance(0.3) else self.rng.randrange(1, PROFILES + 1)

    def key(self):
        return self.schema.key(self.rng.randrange(1, KEYS + 1))

    def which(self, n=None):
        """A condition that finds one profile, or a few."""
        s, i = self.schema, n or self.profile()
        if self.chance(0.1):
            return f"{s.pk_column} IN ({', '.join(s.primary(self.profile()) for _ in range(4))})"
        return f"{s.pk_column} = {s.primary(i)}" if self.chance(0.7) else f"supabase_user_id = {s.key(i)}"

    def period(self):
        return self.of(
            ["NULL", "now() + interval '1 day'", "now() - interval '1 day'", "now() + interval '1 hour'"]
            + [f"clock_timestamp() + interval '{self.rng.randrange(20, 900)} ms'"] * 2
        )

    def plan(self):
        return literal(self.of(PLANS + [None]))

    def a_role(self):
        return self.schema.role(self.rng.randrange(1, 5))

    def used(self):
        """An assignment to a column of the profile that the document shows."""
        return self.of(
            [
                f"display_name = {self.text()}", f"email = {self.text()}", "login_count = login_count + 1", "weight = random()",
                f"span = '{self.rng.randrange(99)} days 3 hours'", f"born = '20{self.rng.randrange(10, 30)}-03-04'",
                f"prefs = '{{\"a\": {self.rng.randrange(9)}.00}}'", "created_at = clock_timestamp()", "seen_at = localtimestamp",
                "raw = decode(md5(random()::text), 'hex')", "amount = round(random()::numeric, 3)",
                "prefs = (SELECT jsonb_object_agg(md5(random()::text), i) FROM generate_series(1, 120) AS i)",
            ]
        )  # fmt: skip

    def unused(self):
        return self.of(
            [
                f"note = {self.text()}", "visits = visits + 1", f"api_token = {self.text()}", "display_name = display_name",
                "cached_profile = '{\"forged\": 1}', cached_profile_epoch = coalesce(cached_profile_epoch, (SELECT max(cached_profile_epoch) FROM user_profile))",
                "cached_profile_valid_until = NULL", "profile_cache_updated_at = '2001-01-01'",
            ]
        )  # fmt: skip

    # Single statements

    def insert_profile(self, i=None, key=None):
        s = self.schema
        i = i or self.profile()
        key = key or (s.key(i) if self.chance(0.8) else self.key())
        columns, values = ("supabase_user_id", s.primary(i)) if s.pk == "key" else ("id, supabase_user_id", f"{s.primary(i)}, {key}")
        return f"INSERT INTO user_profile ({columns}, email, display_name) VALUES ({values}, {self.text()}, {self.text()})"

    def insert_subscription(self, i=None):
        n = self.rng.randrange(1, SUBSCRIPTIONS + 1)
        user = self.schema.primary(i or self.profile())
        return f"INSERT INTO user_subscription (id, user_id, plan_id, status, current_period_end) VALUES ({n}, {user}, {self.plan()}, '{self.of(STATES)}', {self.period()})"

    def insert_user_role(self, i=None, role=None):
        s = self.schema
        columns, values = ("id, ", f"{self.rng.randrange(1, USER_ROLES + 1)}, ") if s.user_role_key == "id" else ("", "")
        return f"INSERT INTO user_role ({columns}user_id, role_id) VALUES ({values}{s.role_user(i or self.profile())}, {role or self.a_role()})"

    def which_role(self):
        s = self.schema
        if s.user_role_key == "id" and self.chance(0.6):
            return f"id = {self.rng.randrange(1, USER_ROLES + 1)}"
        return f"user_id = {s.role_user(self.profile())}" + (f" AND role_id = {self.a_role()}" if self.chance(0.4) else "")

    def which_subscription(self):
        return f"id = {self.rng.randrange(1, SUBSCRIPTIONS + 1)}" if self.chance(0.6) else f"user_id = {self.schema.primary(self.profile())}"

    def change_subscription(self):
        return self.of(
            [
                f"status = '{self.of(STATES)}'", f"plan_id = {self.plan()}", f"current_period_end = {self.period()}", "price = 1 + coalesce(price, 0)",
                "status = status", f"user_id = {self.schema.primary(self.profile())}", f"id = {self.rng.randrange(1, SUBSCRIPTIONS + 1)}",
                "plan_id = 'pro', status = 'active', current_period_end = NULL",
            ]
        )  # fmt: skip

    def change_user_role(self):
        s = self.schema
        own_key = [f"id = {self.rng.randrange(1, USER_ROLES + 1)}"] if s.user_role_key == "id" else []
        return self.of([f"role_id = {self.a_role()}", f"user_id = {s.role_user(self.profile())}", "granted_at = now()", "role_id = role_id", *own_key])

    def change_plan(self):
        return self.of(
            [f"display_name = {self.text()}", "ai_daily_limit = ai_daily_limit + 1", f"features = '{{\"f\": {self.rng.randrange(99)}}}'", "price = price + 1"]
        )

    def change_role(self):
        return self.of([f"name = {self.text()}", f"permissions = '[{self.rng.randrange(99)}]'", "comment = 'c'", "permissions = permissions"])

    def returning(self):
        """Now and then a check in the middle of the statement."""
        return self.of([" RETURNING check_all()", " RETURNING check_all_stable()"]) if self.chance(0.12) else ""

    def write(self):
        """One statement that writes something."""
        s, r = self.schema, self.returning
        choices = [
            (10, lambda: f"UPDATE user_profile SET {self.used()} WHERE {self.which()}{r()}"),
            (5, lambda: f"UPDATE user_profile SET {self.unused()} WHERE {self.which()}{r()}"),
            (1, lambda: f"UPDATE user_profile SET login_count = login_count + check_all() WHERE {self.which()}{r()}"),
            (1, lambda: f"UPDATE user_profile SET login_count = login_count + app_price(supabase_user_id) WHERE {self.which()}{r()}"),
            (1, lambda: f"UPDATE user_profile SET {self.used()} WHERE {self.which()} RETURNING app_price(supabase_user_id), check_all()"),
            (1, lambda: f"DELETE FROM user_subscription WHERE {self.which_subscription()} RETURNING check_all()"),
            (10, lambda: f"UPDATE user_subscription SET {self.change_subscription()} WHERE {self.which_subscription()}{r()}"),
            (8, lambda: self.insert_subscription() + self.of(["", " ON CONFLICT DO NOTHING", " ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id, status = excluded.status, plan_id = excluded.plan_id"]) + r()),
            (3, lambda: f"DELETE FROM user_subscription WHERE {self.which_subscription()}{r()}"),
            (8, lambda: self.insert_user_role() + self.of(["", " ON CONFLICT DO NOTHING"]) + r()),
            (5, lambda: f"UPDATE user_role SET {self.change_user_role()} WHERE {self.which_role()}{r()}"),
            (4, lambda: f"DELETE FROM user_role WHERE {self.which_role()}{r()}"),
            (3, lambda: f"UPDATE subscription_plan SET {self.change_plan()} WHERE id = '{self.of(PLANS)}'{r()}"),
            (2, lambda: f"UPDATE role SET {self.change_role()} WHERE id = {self.a_role()}{r()}"),
            (4, lambda: self.insert_profile() + self.of(["", " ON CONFLICT DO NOTHING", " ON CONFLICT (supabase_user_id) DO UPDATE SET display_name = excluded.display_name, visits = 0"]) + r()),
            (3, lambda: f"DELETE FROM user_profile WHERE {s.pk_column} = {s.primary(self.profile())}{r()}"),
            (2, lambda: f"UPDATE user_profile SET {s.pk_column} = {s.primary(self.profile())} WHERE {s.pk_column} = {s.primary(self.profile())}{r()}"),
            (3, lambda: f"UPDATE user_profile SET supabase_user_id = {self.key()} WHERE supabase_user_id = {self.key()}{r()}"),
            (0.3, lambda: f"UPDATE subscription_plan SET id = '{self.of(PLANS)}' WHERE id = '{self.of(PLANS)}'"),
            (0.3, lambda: f"DELETE FROM subscription_plan WHERE id = '{self.of(PLANS)}'"),
            (0.6, lambda: f"INSERT INTO subscription_plan VALUES ('{self.of(PLANS)}', {self.text()}, 5, '{{}}', 1) ON CONFLICT (id) DO UPDATE SET features = excluded.features"),
            (0.3, lambda: f"UPDATE role SET id = {self.a_role()} WHERE id = {self.a_role()}"),
            (0.3, lambda: f"DELETE FROM role WHERE id = {self.a_role()}"),
            (0.6, lambda: f"INSERT INTO role VALUES ({self.a_role()}, {self.text()}, '[]') ON CONFLICT (id) DO UPDATE SET permissions = excluded.permissions"),
            (1.5, self.bulk),
            (2, self.merge),
            (3, self.writable_cte),
            (2, self.block),
        ]  # fmt: skip
        if s.null_key:
            choices.append((0.5, lambda: f"UPDATE user_profile SET supabase_user_id = NULL WHERE supabase_user_id = {self.key()}"))
        if self.superuser:
            choices += [
                (0.7, lambda: f"SELECT profile_cache.invalidate({self.key()})"),
                (0.15, lambda: "SELECT profile_cache.invalidate_all()"),
            ]
        weights, makers = zip(*choices)
        return self.rng.choices(makers, weights)[0]()

    def bulk(self):
        return self.of(
            [
                "UPDATE user_profile SET login_count = login_count + 1", "UPDATE user_profile SET visits = visits + 1",
                f"UPDATE user_subscription SET status = '{self.of(STATES)}' WHERE id % 2 = 0", "UPDATE user_subscription SET status = 'active', plan_id = 'pro'",
                f"UPDATE user_role SET role_id = {self.a_role()} WHERE role_id = {self.a_role()}", "UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1",
            ]
        )  # fmt: skip

    def merge(self):
        s = self.schema
        rows = lambda: ", ".join(
            f"({n}, {s.primary(self.profile())}, {self.plan()}, '{self.of(STATES)}')" for n in self.rng.sample(range(1, SUBSCRIPTIONS + 1), 3)
        )
        pk_type = "uuid" if s.pk == "key" else s.pk
        if self.chance(0.3):
            return (
                f"MERGE INTO user_profile AS t USING (VALUES ({self.key()}::uuid), ({self.key()})) AS s(k) ON t.supabase_user_id = s.k "
                f"WHEN MATCHED AND t.visits > 4 THEN DELETE WHEN MATCHED THEN UPDATE SET {self.used()}, visits = t.visits + 1"
            )
        return (
            f"MERGE INTO user_subscription AS t USING (SELECT n, u::{pk_type}, p, st FROM (VALUES {rows()}) AS v(n, u, p, st)) AS s ON t.id = s.n "
            "WHEN MATCHED AND t.status = 'canceled' THEN DELETE WHEN MATCHED THEN UPDATE SET plan_id = s.p, status = s.st "
            "WHEN NOT MATCHED THEN INSERT (id, user_id, plan_id, status) VALUES (s.n, s.u, s.p, s.st)"
        )

    def writable_cte(self):
        i = self.profile()
        s = self.schema
        parts = [
            f"UPDATE user_profile SET {self.used()} WHERE {self.which(i)} RETURNING 1",
            f"UPDATE user_profile SET {self.unused()} WHERE {self.which(i)} RETURNING 1",
            f"UPDATE user_subscription SET {self.change_subscription()} WHERE user_id = {s.primary(i)} RETURNING 1",
            self.insert_user_role(i) + " ON CONFLICT DO NOTHING RETURNING 1",
            self.insert_subscription(i) + " ON CONFLICT DO NOTHING RETURNING 1",
            f"DELETE FROM user_role WHERE user_id = {s.role_user(i)} RETURNING 1",
            f"UPDATE subscription_plan SET {self.change_plan()} WHERE id = '{self.of(PLANS)}' RETURNING 1",
            f"DELETE FROM user_profile WHERE {s.pk_column} = {s.primary(self.profile())} RETURNING 1",
            self.insert_profile() + " ON CONFLICT DO NOTHING RETURNING 1",
        ]
        chosen = self.rng.sample(parts, self.of([2, 2, 3]))
        return "WITH " + ", ".join(f"c{n} AS ({part})" for n, part in enumerate(chosen)) + f" SELECT {self.of(['1', 'check_all()', 'check_all_stable()'])}"

    def block(self):
        """plpgsql, with a subtransaction that goes or stays."""
        write = lambda: f"UPDATE user_profile SET {self.used()} WHERE {self.which()}; " if self.chance(0.5) else f"UPDATE user_subscription SET {self.change_subscription()} WHERE {self.which_subscription()}; "
        end = self.of(["RAISE EXCEPTION 'undo'; ", ""])
        check = self.of(["PERFORM check_all(); ", ""])
        return f"DO $$ BEGIN {write()}BEGIN {write()}{check}{end}EXCEPTION WHEN raise_exception THEN NULL; END; {check}{write()}PERFORM check_all(); END $$"

    def oracle(self):
        pinned = self.settings is PINNED
        if self.chance(0.04) and self.superuser:
            return Step("SELECT user_id, problem FROM profile_cache.verify()", "verify")
        if self.chance(0.08):
            return Step("SELECT check_all()", "check")
        if self.chance(0.06):
            return Step("SELECT check_all_stable()", "check")
        # app_writer may not read the view: expected() does it for him.
        return Step(ORACLE_VIEW if pinned and self.superuser and self.chance(0.5) else ORACLE_FUNCTION, "oracle")

    # Programs

    def transaction(self):
        rng = self.rng
        isolation = rng.choices(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"], [6, 3, 1])[0]
        # A plain connection of an app, whose one statement is its own transaction.
        if self.chance(0.2):
            yield Step(self.write())
            if self.chance(0.5):
                yield self.oracle()
            return
        yield Step(f"BEGIN ISOLATION LEVEL {isolation}")
        if self.chance(0.3):
            yield Step("SET LOCAL app.watchful = 'on'")
        if self.chance(0.25):
            yield Step(f"SET LOCAL profile_cache.max_immediate = {rng.randrange(0, 4)}")
        if self.chance(0.3):
            yield Step("SET CONSTRAINTS ALL DEFERRED")
        if self.chance(0.04):
            yield Step(f"SET LOCAL statement_timeout = '{rng.randrange(1, 12)} ms'", hurry=True)
            self.hurry = True
        if isolation != "READ COMMITTED" and self.chance(0.5):
            yield self.oracle()
        savepoints = 0
        cursor = False
        for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 6, 9])):
            choice = rng.random()
            if choice < 0.1:
                result = yield Step(f"SAVEPOINT p{savepoints + 1}")
                savepoints += result.ok
            elif choice < 0.16 and savepoints:
                result = yield Step(f"ROLLBACK TO p{savepoints}")
                if self.chance(0.5):
                    result = yield self.oracle()
            elif choice < 0.19 and savepoints:
                result = yield Step(f"RELEASE p{savepoints}")
                savepoints -= result.ok
            elif choice < 0.22:
                # Perhaps between two changes.
                cursor = True
                result = yield Step(self.write() if self.chance(0.5) else "SELECT 1")
                if result.ok:
                    result = yield Step(f"DECLARE c{rng.randrange(10**6)} CURSOR FOR {ORACLE_FUNCTION}")
                    name, declared = self.step.sql.split()[1], self.mark
                for _ in range(rng.choice([1, 1, 2, 3])):
                    if result.ok:
                        result = yield Step(self.write())
                if result.ok:
                    result = yield Step(f"FETCH ALL FROM {name}", "oracle", mark=declared)
            elif choice < 0.28:
                # A key deleted and inserted again, perhaps with a child in between.
                i = self.profile()
                result = yield Step(f"DELETE FROM user_profile WHERE {self.schema.pk_column} = {self.schema.primary(i)}")
                if result.ok and self.chance(0.3):
                    result = yield self.oracle()
                if result.ok and self.chance(0.4):
                    result = yield Step(self.of([self.insert_subscription(i), self.insert_user_role(i)]))
                if result.ok:
                    result = yield Step(self.insert_profile(i))
            elif choice < 0.33:
                # The child before its parent.
                i = self.profile()
                result = yield Step(self.of([self.insert_subscription(i), self.insert_user_role(i)]))
                if result.ok:
                    result = yield Step(self.write())
                if result.ok:
                    result = yield Step(self.insert_profile(i) + " ON CONFLICT DO NOTHING")
            elif choice < 0.37:
                # Undone, and done again: what this transaction remembers must be undone with it.
                i = self.profile()
                s = self.schema
                what = self.of(
                    [
                        lambda: self.of([self.insert_subscription, self.insert_user_role])(i),
                        lambda: f"UPDATE user_subscription SET status = '{self.of(STATES)}' WHERE user_id = {s.primary(i)}",
                        lambda: f"DELETE FROM user_profile WHERE {s.pk_column} = {s.primary(i)}",
                        self.bulk,
                    ]
                )
                result = yield Step("SAVEPOINT undone")
                if result.ok:
                    for _ in range(rng.choice([1, 1, 2, 3, 4])):
                        if result.ok:
                            result = yield Step(what())
                    result = yield Step("ROLLBACK TO undone")
                for _ in range(rng.randrange(3)):
                    if result.ok:
                        result = yield Step("SELECT 1")
                if result.ok:
                    again = self.bulk if what == self.bulk else lambda: self.of([self.insert_subscription, self.insert_user_role])(i) + " ON CONFLICT DO NOTHING"
                    result = yield Step(again())
            elif choice < 0.39:
                i = self.profile()
                data = f"{self.schema.role_user(i)}\t{self.a_role()}".replace("'", "")
                columns = "user_id, role_id"
                if self.schema.user_role_key == "id":
                    columns, data = "id, " + columns, f"{rng.randrange(1, USER_ROLES + 1)}\t{data}"
                result = yield Step(f"COPY user_role ({columns}) FROM STDIN", copy=data + "\n")
            elif choice < 0.405 and self.superuser:
                result = yield Step("SET LOCAL session_replication_role = replica")
                if result.ok:
                    result = yield Step(
                        self.of(
                            [
                                f"UPDATE user_profile SET {self.used()} WHERE {self.which()}",
                                f"UPDATE user_subscription SET status = '{self.of(STATES)}', current_period_end = {self.period()} WHERE {self.which_subscription()}",
                                f"DELETE FROM user_role WHERE {self.which_role()}",
                                f"UPDATE subscription_plan SET {self.change_plan()} WHERE id = '{self.of(PLANS)}'",
                            ]
                        )
                    )
                if result.ok:
                    result = yield Step("SET LOCAL session_replication_role = origin")
            elif choice < 0.43 and self.superuser:
                result = yield Step("SET LOCAL ROLE reader")
                if result.ok:
                    result = yield Step(ORACLE_FUNCTION, "oracle")
                if result.ok:
                    result = yield Step("RESET ROLE")
            elif choice < 0.455:
                result = yield Step(f"SELECT FROM user_profile WHERE {self.which()} FOR {self.of(['UPDATE', 'NO KEY UPDATE', 'SHARE', 'KEY SHARE'])}")
            elif choice < 0.6:
                result = yield self.oracle()
            else:
                result = yield Step(self.write())
            if not result.ok:
                if savepoints and self.chance(0.6):
                    result = yield Step(f"ROLLBACK TO p{savepoints}")
                    if result.ok:
                        yield self.oracle()
                        continue
                break
            if isolation != "READ COMMITTED":
                yield from self.doubt()
            if self.chance(0.25):
                result = yield self.oracle()
                if not result.ok:
                    break
        if not self.pg.transaction_status == pq.TransactionStatus.INTRANS or self.chance(0.12):
            yield Step("ROLLBACK;")
        elif self.chance(0.08) and not cursor and len(self.test.prepared) < 4:
            name = f"p{self.test.number}"
            result = yield Step(f"PREPARE TRANSACTION '{name}'")
            if result.ok and "PREPARE" in result.tag:
                self.test.prepared.append(name)
        else:
            yield Step("COMMIT")
        self.hurry = self.doubtful = False
        if self.chance(0.3):
            yield self.oracle()

    def reader(self):
        """A snapshot that is kept while the others go on."""
        yield Step(f"BEGIN ISOLATION LEVEL {self.of(['REPEATABLE READ', 'SERIALIZABLE'])}{self.of(['', ' READ ONLY'])}")
        for _ in range(self.rng.randrange(2, 9)):
            result = yield self.oracle()
            if not result.ok:
                break
        yield Step("ROLLBACK;")

    def late_writer(self):
        """Writes in a snapshot beside which others, refresh too, have gone on; perhaps a profile that comes
        by an identity which another one has in that snapshot."""
        s, i, k = self.schema, self.profile(), self.rng.randrange(1, KEYS + 1)
        self.test.coveted, self.test.vacated, self.test.edited = i, None, None
        yield Step(f"BEGIN ISOLATION LEVEL {self.of(['REPEATABLE READ', 'REPEATABLE READ', 'SERIALIZABLE'])}")
        result = yield self.oracle()
        for _ in range(self.of([0, 2, 5, 10, 20, 40])):
            if result.ok:
                result = yield Step("SELECT 1")
        # What it goes by is what has changed since its snapshot, where something has.
        edited = self.test.edited
        if result.ok and self.test.vacated == i:
            result = yield Step(self.insert_profile(i))
        elif result.ok and edited:
            plan, role = edited
            user_role = self.insert_user_role(i, role)
            subscription = f"UPDATE user_subscription SET plan_id = '{plan}', status = 'active', current_period_end = NULL WHERE {self.which_subscription()}"
            result = yield Step(user_role if role else subscription)
        elif result.ok and self.chance(0.5):
            result = yield Step(
                self.of(
                    [
                        self.insert_profile(i),
                        f"UPDATE user_profile SET {s.pk_column} = {s.primary(i)} WHERE {self.which()}",
                        f"UPDATE user_profile SET supabase_user_id = {s.key(k)} WHERE {self.which()}",
                    ]
                )
            )
            if result.ok and self.chance(0.3):
                result = yield Step(self.of([self.insert_user_role(i), self.insert_subscription(i)]))
        elif result.ok:
            result = yield Step(self.write())
        self.test.coveted = None
        if result.ok:
            yield from self.doubt()
            result = yield self.oracle()
        yield Step("COMMIT" if result.ok else "ROLLBACK;")
        self.doubtful = False
        yield self.oracle()

    def editor(self):
        """An administrator: edits a plan or a role, or deletes an account, and refreshes."""
        s, i = self.schema, self.test.coveted or self.profile()
        plan, role = self.of(PLANS), self.a_role()
        choice = self.rng.randrange(5)
        if choice < 2:
            result = yield Step(f"UPDATE subscription_plan SET {self.change_plan()} WHERE id = '{plan}'")
            self.test.edited = (plan, None)
        elif choice == 2:
            result = yield Step(f"UPDATE role SET {self.change_role()} WHERE id = {role}")
            self.test.edited = (None, role)
        else:
            roles = f"DELETE FROM user_role WHERE user_id = {s.role_user(i)}; " if self.chance(0.5) else ""
            result = yield Step(f"{roles}DELETE FROM user_profile WHERE {s.pk_column} = {s.primary(i)}")
            if result.ok:
                self.test.vacated = i
                return
        if result.ok and self.superuser:
            yield Step(f"CALL profile_cache.refresh({self.of([3, 5000])})")

    def app(self):
        """How an app reads: a prepared statement, now and then."""
        name = f"q{self.test.number}"
        result = yield Step(f"PREPARE {name} AS {ORACLE_FUNCTION}")
        if not result.ok:
            return
        for _ in range(self.rng.randrange(1, 9)):
            result = yield Step(f"EXECUTE {name}", "oracle")
        yield Step(f"DEALLOCATE {name}")

    def refresh(self):
        step = Step(f"CALL profile_cache.refresh({self.of([1, 2, 3, 5, 5000])})")
        yield step

    def refresh_by_steps(self):
        """refresh() with its transactions left open between steps, as a slow one would."""
        # Not from 'begin': whoever stops in the middle would keep the turn, and every CALL refresh() of others do nothing but help.
        phase, course, batch = self.of(["'keys'", "'epochs'", "'help'"]), "NULL", self.of([1, 2, 3, 7])
        helps = phase == "'help'"
        for _ in range(self.rng.randrange(3, 40)):
            yield Step("BEGIN ISOLATION LEVEL READ COMMITTED")
            result = yield Step(f"SELECT phase, course FROM profile_cache.refresh_step({batch}, {phase}, {course})")
            end = self.of(["COMMIT", "COMMIT", "COMMIT", "COMMIT", "COMMIT", "ROLLBACK;"])
            yield Step(end if result.ok else "ROLLBACK;")
            if not result.ok:
                return
            self.test.counts["refresh steps"] += 1
            if end == "COMMIT":
                phase, course = map(literal, result.rows[0])
                if phase == "'done'":
                    return
        if helps:
            # It may have found the turn free, and taken it: this gives it back.
            yield from self.refresh()

    def vacuum(self):
        yield Step(self.of(["VACUUM (FREEZE) user_profile", "VACUUM user_profile", "VACUUM (FREEZE) profile_cache.epoch", "VACUUM (FREEZE) profile_cache.pending_key", "VACUUM profile_cache.pending_epoch", "ANALYZE user_profile"]))

    def truncate(self):
        yield Step(f"BEGIN ISOLATION LEVEL {self.of(['READ COMMITTED', 'REPEATABLE READ'])}")
        result = yield Step(f"TRUNCATE {self.of(MEMBERS)}")
        if result.ok:
            yield self.oracle()
            result = yield Step(self.of([self.insert_subscription(), self.insert_user_role()]))
        if result.ok and self.chance(0.8):
            yield Step("COMMIT", upheaval=True, patient=True)
        else:
            yield Step("ROLLBACK;")

    def ddl(self):
        """One session at a time: PostgreSQL itself fails DDL beside DDL ("tuple concurrently updated")."""
        self.test.ddl = True
        try:
            yield from self.of([self.switch_trigger, self.switch_trigger, self.attach_again, self.add_column, self.index])()
        finally:
            self.test.ddl = False

    def persist(self, sql, upheaval=False):
        """In a transaction, again and again until it has succeeded."""
        while True:
            yield Step("BEGIN ISOLATION LEVEL READ COMMITTED")
            result = yield Step(sql)
            if result.ok:
                yield self.oracle()
                result = yield Step("COMMIT", upheaval=upheaval, patient=True)
                if result.ok and result.tag == "COMMIT":
                    return
            else:
                yield Step("ROLLBACK;")

    def switch_trigger(self):
        table = self.of(TABLES)
        rows = self.test.control.must(
            f"SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgfoid IN "
            "(SELECT oid FROM pg_proc WHERE pronamespace = 'profile_cache'::regnamespace) ORDER BY 1"
        )
        trigger = self.of(rows)[0]
        yield Step("BEGIN ISOLATION LEVEL READ COMMITTED")
        result = yield Step(f"ALTER TABLE {table} {self.of(['DISABLE', 'DISABLE', 'ENABLE', 'ENABLE REPLICA'])} TRIGGER {trigger}")
        if result.ok:
            yield self.oracle()
        result = yield Step(self.of(["COMMIT", "COMMIT", "ROLLBACK;"]) if result.ok else "ROLLBACK;")
        if result.tag == "COMMIT":
            for _ in range(self.rng.randrange(0, 12)):
                yield Step(self.of([self.write, self.member, lambda: "SELECT 1", lambda: "CALL profile_cache.refresh()"])())
            if self.chance(0.7):
                yield from self.persist(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")
            else:
                yield from self.persist("SELECT profile_cache.attach(exclude => '{note,visits}')")

    def member(self):
        return self.of(
            [
                f"UPDATE user_subscription SET {self.change_subscription()} WHERE {self.which_subscription()}",
                f"UPDATE user_role SET {self.change_user_role()} WHERE {self.which_role()}",
                f"UPDATE subscription_plan SET {self.change_plan()} WHERE id = '{self.of(PLANS)}'",
            ]
        )

    def attach_again(self):
        yield from self.persist("SELECT profile_cache.attach(exclude => '{note,visits}')")

    def add_column(self):
        self.test.columns += 1
        name = f"extra{self.test.columns}"
        if self.test.columns > 8:
            return
        if self.chance(0.5):
            yield from self.persist(f"ALTER TABLE user_profile ADD COLUMN {name} text DEFAULT 'd'")
            yield Step(f"UPDATE user_profile SET {name} = {self.text()} WHERE {self.which()}")
            yield from self.persist("SELECT profile_cache.attach(exclude => '{note,visits}')", upheaval=True)
        else:
            yield from self.persist(
                f"ALTER TABLE user_profile ADD COLUMN {name} text; SELECT profile_cache.attach(exclude => '{{note,visits}}')",
                upheaval=True,
            )

    def index(self):
        yield Step("CREATE INDEX IF NOT EXISTS later ON user_profile (display_name)")
        yield Step("SELECT 1")
        yield Step("DROP INDEX IF EXISTS later")


class Test(Scheduler):
    def __init__(self, options):
        super().__init__(ORACLE, options)
        self.schema = Schema(self.rng)
        # The profile that a session with an old snapshot is going to write, and what others did meanwhile.
        self.coveted = self.vacated = self.edited = None
        self.hot = 1
        self.ddl = False
        self.columns = 0

    # Setting up

    def set_up(self):
        self.control = Connection(self, "control")
        must = self.control.must
        must("SET client_min_messages = warning")
        must("CREATE EXTENSION profile_cache")
        # Roles belong to the whole server; an earlier run may have left them.
        for role in ("app_writer", "reader"):
            must(f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role}; END IF; END $$")
        must(self.schema.sql())
        keys = [("user_profile", self.schema.pk_column), ("user_profile", "supabase_user_id"), ("subscription_plan", "id"), ("role", "id"), ("user_subscription", "id")]
        self.twice = "SELECT " + " OR ".join(f"EXISTS (SELECT FROM {t} GROUP BY {k} HAVING count(*) > 1)" for t, k in keys)
        filler = Filler(self)
        rows = [filler.insert_profile(i, self.schema.key(i)) for i in range(1, PROFILES + 1)]
        rows += [filler.insert_subscription() + " ON CONFLICT DO NOTHING" for _ in range(12)]
        rows += [filler.insert_user_role() + " ON CONFLICT DO NOTHING" for _ in range(20)]
        must(";\n".join(rows))
        must("SELECT profile_cache.attach(exclude => '{note,visits}')")
        must(self.schema.checks())
        must("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app_writer; REVOKE ALL ON profile_document FROM app_writer")
        must("GRANT SELECT ON user_profile TO reader")
        must("GRANT SET ON PARAMETER profile_cache.max_immediate TO app_writer")
        if self.schema.preloaded:
            must("CALL profile_cache.refresh()")
        self.sessions = [Session(self, n) for n in range(1, 7)]

    def choose_program(self, session):
        choices = [(70, session.transaction), (7, session.reader), (4, session.app), (8, session.late_writer), (15 if self.coveted else 2, session.editor)]
        if session.superuser:
            choices += [(10, session.refresh), (9, session.refresh_by_steps), (0.6, session.vacuum), (0.5, session.truncate)]
            if not self.ddl:
                choices.append((1.2, session.ddl))
        weights, programs = zip(*choices)
        return self.rng.choices(programs, weights)[0]()

    def run(self):
        end = time.monotonic() + self.seconds
        phase_ends, working = 0, self.sessions
        while time.monotonic() < end:
            self.collect(0)
            if self.prepared and self.rng.random() < 0.02:
                self.resolve()
            # Busy and quiet times: with few at work, refresh comes to the end of what is pending.
            if self.number >= phase_ends:
                phase_ends = self.number + self.rng.randrange(50, 500)
                self.hot = self.rng.randrange(1, PROFILES + 1)
                working = self.rng.sample(self.sessions, self.rng.choice([2, 3, 4, 6, 6]))
            self.turn(working)
        self.wind_up()

    def allowed(self, session):
        state, sql = session.result.state, session.step.sql
        return (
            state in EXPECTED
            # Nobody may read a table in the middle of TRUNCATE, or DDL behind a cursor.
            or (state == "55006" and sql.startswith(("TRUNCATE", "ALTER", "CREATE INDEX", "DROP INDEX", "SELECT profile_cache.attach")))
            # 27000: the app's trigger changes a subscription that another part of the same statement is about to change.
            or (state == "27000" and sql.startswith("WITH") and "user_subscription" in sql and self.schema.grant)
        )

    # The end

    def finish(self):
        must = self.control.must
        for _ in range(10):
            must("CALL profile_cache.refresh(3)", 120)
            left = must("SELECT count(*) FROM profile_cache.pending")[0][0]
            if left == "0":
                break
        wrong = []
        for sql, wanted in {
            "SELECT user_id, problem FROM profile_cache.verify()": [],
            "SELECT * FROM profile_cache.pending": [],
            "SELECT count(*) FROM profile_cache.epoch": [["1"]],
            "SELECT * FROM profile_cache.epoch_progress": [],
            "SELECT * FROM profile_cache.unmatched_key": [],
            "SELECT * FROM profile_cache.claim": [],
            "SELECT * FROM profile_cache.failure": [],
            # What expires later is made fresh by the refresh above or not yet expired; read by the reader's own rule.
            "SELECT p.supabase_user_id, e FROM user_profile AS p, profile_cache.explain(p.supabase_user_id) AS e WHERE e->>'served_from' <> 'cache' "
            "AND e->>'reason' <> 'expired'": [],
            f"SELECT * FROM ({ORACLE_VIEW}) AS o(k, source, reason, got, wanted) WHERE o.got IS DISTINCT FROM o.wanted": [],
            "SELECT disabled_triggers, held_up_by, failures, pending_keys, pending_epochs, warnings FROM profile_cache.status": [["{}", "{}", "0", "0", "0", "{}"]],
        }.items():
            found = must(sql)
            if found != wanted:
                wrong.append(f"at the end: {sql}\n  {found}")
        # Written below SQL: heap and indexes still agree.
        if must("SELECT FROM pg_available_extensions WHERE name = 'amcheck'"):
            must("CREATE EXTENSION amcheck")
            must("SELECT bt_index_check(i.indexrelid, true) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam "
                 "WHERE i.indrelid = 'user_profile'::regclass AND a.amname = 'btree'")  # fmt: skip
            if found := must("SELECT * FROM verify_heapam('user_profile')"):
                wrong.append(f"verify_heapam: {found}")
        looks = self.counts["hits"] + sum(self.misses.values())
        share = self.counts["hits"] / max(1, looks)
        if looks and share < 0.1:
            wrong.append(f"only {share:.0%} of the reads came from the cache: this shows nothing")
        if self.counts["checks"] < 20:
            wrong.append("hardly a check was made: this shows nothing")
        if wrong:
            raise Failed("\n".join(wrong))

    def figures(self):
        c, looks = self.counts, self.counts["hits"] + sum(self.misses.values())
        print("schema: ", self.schema)
        print("reads of a profile that were compared:", looks, f"({c['hits'] / max(1, looks):.0%} from the cache; misses:", ", ".join(f"{k} {v}" for k, v in self.misses.most_common()) + ")")
        print("SQLSTATEs:", ", ".join(f"{k} {v}" for k, v in self.states.most_common()) or "none")
        if self.warnings:
            print("warnings:", ", ".join(f"{k} ({v})" for k, v in self.warnings.most_common()))
        print(
            f"stress: seed {self.seed}, {c['transactions']} transactions ({c['prepared']} prepared), {c['statements']} statements, {c['checks']} checks of all profiles, "
            f"{c['verifies']} verify(), {c['refreshes']} refreshes and {c['refresh steps']} single steps, {c['lock waits']} lock waits, "
            f"{self.states['40001']} serialization failures, {self.states['40P01']} deadlocks ({c['deadlocks in our own statements']} in our own statements), {c['excused']} excused"
        )


class Filler(Session):
    """A session's vocabulary for the first rows."""

    def __init__(self, test):
        self.test, self.rng, self.schema = test, test.rng, test.schema


if __name__ == "__main__":
    main(Test(arguments(__doc__)))
