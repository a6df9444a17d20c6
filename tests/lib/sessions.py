"""Concurrent sessions at random, from a seed, and the oracle that judges what they see: what
stress/stress.py and catalogue/catalogue.py share.

One process drives several connections: it sends one statement on one of them, waits until that has
ended or waits for a lock, and goes on with another. A Worker runs one program after the other, each a
generator of Steps; the Scheduler chooses who goes on, and judges every result.

The oracle: in one statement, for every profile, get_profile() and the document view read as the owner
under the pinned settings are the same text. An app may not see anything else either: SQLSTATEs that
its own statements could not have raised without us fail the test.
"""

import argparse
import collections
import random
import select
import sys
import time

from psycopg import OperationalError, pq

from lib.command import Failed, Vacuous

# What concurrent writers of such tables may meet without us: serialization failures, deadlocks, keys
# that are taken or missing, NULL in a key, one row met twice by ON CONFLICT or MERGE, lock_timeout,
# statements after an error.
EXPECTED = {"40001", "40P01", "23503", "23505", "23502", "21000", "55P03", "25P02"}
MISMATCH = "PC001"  # raised by the checks inside the server

PINNED = {
    "TimeZone": "UTC", "DateStyle": "ISO, MDY", "IntervalStyle": "postgres", "extra_float_digits": "1", "bytea_output": "hex",
}  # fmt: skip
UNPINNED = {
    "TimeZone": ["America/St_Johns", "Asia/Kathmandu"], "DateStyle": ["German", "SQL, DMY"], "IntervalStyle": ["iso_8601", "sql_standard"],
    "extra_float_digits": ["0", "-15", "3"], "bytea_output": ["escape"],
}  # fmt: skip


def literal(value):
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


class Oracle:
    """The statements and functions that compare, for a profile table, its key and a document view."""

    def __init__(self, table, key, view):
        self.table, self.key = table, key
        statement = f"""SELECT p.{key}, e.e->>'served_from', e.e->>'reason', {{got}}, {{wanted}}
 FROM {table} AS p {{join}} CROSS JOIN LATERAL (SELECT profile_cache.explain(p.{key}) AS e) AS e
 WHERE p.{key} IS NOT NULL"""
        got = f"get_profile(p.{key})::text"
        # Through expected() for whoever has other settings, or may not read the view; by a join, so that its plan is another one.
        self.by_function = statement.format(got=got, wanted=f"expected(p.{key})", join="")
        # get_profiles() gives the same for all at once.
        self.by_view = statement.format(
            got=f"CASE WHEN m.profile::text IS DISTINCT FROM {got} THEN format('%s, by get_profiles %s', {got}, m.profile) ELSE m.profile::text END",
            wanted="v.document::text",
            join=f"LEFT JOIN {view} AS v ON v.{key} = p.{key} LEFT JOIN get_profiles(ARRAY(SELECT q.{key} FROM {table} AS q)) AS m ON m.user_id = p.{key}",
        )
        # expected() is STABLE, so it reads in the snapshot of whoever asks.
        self.functions = f"""
CREATE FUNCTION expected(k uuid) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER
    {" ".join(f"SET {k} = '{v}'" if k != "DateStyle" else "SET DateStyle = ISO, MDY" for k, v in PINNED.items())}
    AS $$ SELECT v.document::text FROM public.{view} AS v WHERE v.{key} = $1 $$;
CREATE FUNCTION check_all() RETURNS int LANGUAGE plpgsql VOLATILE AS $$
DECLARE bad record;
BEGIN
    SELECT p.{key} AS k, get_profile(p.{key})::text AS got, expected(p.{key}) AS wanted,
        profile_cache.explain(p.{key}) AS explained INTO bad
      FROM public.{table} AS p WHERE p.{key} IS NOT NULL
       AND get_profile(p.{key})::text IS DISTINCT FROM expected(p.{key}) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = '{MISMATCH}', MESSAGE = format('%s: got %s, expected %s, %s', bad.k, bad.got, bad.wanted, bad.explained);
    END IF;
    RETURN 1;
END $$;
CREATE FUNCTION check_all_stable() RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF EXISTS (SELECT FROM public.{table} AS p WHERE p.{key} IS NOT NULL
       AND get_profile(p.{key})::text IS DISTINCT FROM expected(p.{key})) THEN
        RAISE EXCEPTION USING ERRCODE = '{MISMATCH}', MESSAGE = 'in a STABLE function';
    END IF;
    RETURN 1;
END $$;
"""


class Result:
    """What came of one statement."""

    def __init__(self):
        self.state = None  # SQLSTATE, None where it went well
        self.message = ""
        self.rows = []
        self.tag = ""

    @property
    def ok(self):
        return self.state is None

    def add(self, result):
        if result.status == pq.ExecStatus.FATAL_ERROR:
            field = lambda f: (result.error_field(f) or b"").decode(errors="replace")
            self.state = field(pq.DiagnosticField.SQLSTATE) or "lost"
            parts = (pq.DiagnosticField.MESSAGE_PRIMARY, pq.DiagnosticField.MESSAGE_DETAIL, pq.DiagnosticField.CONTEXT)
            self.message = " | ".join(filter(None, map(field, parts))) or result.error_message.decode(errors="replace")
        elif result.status == pq.ExecStatus.TUPLES_OK:
            self.rows = [
                [None if (v := result.get_value(r, c)) is None else v.decode() for c in range(result.nfields)] for r in range(result.ntuples)
            ]
        self.tag = (result.command_status or b"").decode()


class Step:
    """One statement to send. kind: "", "oracle", "verify"; upheaval: its end is not MVCC to others."""

    def __init__(self, sql, kind="", copy=None, upheaval=False, hurry=False, patient=False, mark=None):
        self.sql, self.kind, self.copy, self.upheaval, self.hurry, self.patient = sql, kind, copy, upheaval, hurry, patient
        self.mark = mark  # the upheavals behind its snapshot, where that is older than itself


class Connection:
    def __init__(self, test, name):
        self.test, self.name = test, name
        self.pg = pq.PGconn.connect(test.conninfo.encode())
        if self.pg.status != pq.ConnStatus.OK:
            raise Failed(self.pg.error_message.decode())
        self.pg.notice_handler = self.notice
        self.pid = self.pg.backend_pid

    def notice(self, result):
        if (result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) or b"") == b"WARNING":
            self.test.warnings[(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode()] += 1

    def send(self, step):
        self.step, self.result = step, Result()
        self.pg.send_query(step.sql.encode())
        self.pg.flush()

    def finished(self, timeout):
        """Whether the statement has ended; waits up to `timeout` seconds for it."""
        end = time.monotonic() + timeout
        while True:
            self.pg.consume_input()
            while not self.pg.is_busy():
                result = self.pg.get_result()
                if result is None:
                    return True
                if result.status == pq.ExecStatus.COPY_IN:
                    self.pg.put_copy_data(self.step.copy.encode())
                    self.pg.put_copy_end()
                    self.pg.flush()
                    continue
                self.result.add(result)
            left = end - time.monotonic()
            if left <= 0:
                return False
            select.select([self.pg.socket], [], [], left)

    def run(self, sql, timeout=60):
        self.send(Step(sql))
        if not self.finished(timeout):
            raise Failed(f"{self.name}: no answer in {timeout} s: {sql}")
        return self.result

    def must(self, sql, timeout=60):
        result = self.run(sql, timeout)
        if not result.ok:
            raise Failed(f"{self.name}: {sql}\n{result.state} {result.message}")
        return result.rows


class Worker(Connection):
    """An app's connection: one program after the other, each a generator of steps."""

    def __init__(self, test, number):
        super().__init__(test, f"s{number}")
        self.rng = test.rng
        self.program = None
        self.busy = False
        self.snapshot = None  # the upheavals that a transaction's snapshot has behind it
        self.cancelled_at = -1000
        self.hurry = False  # a statement_timeout is set that may strike
        self.doubtful = False  # its snapshot has something in it that no view can be judged by
        # One in three has settings that documents must not follow.
        self.settings = {k: self.rng.choice(v) for k, v in UNPINNED.items()} if number % 3 == 1 else PINNED

    def doubt(self):
        """In an old snapshot a key may be there twice: as a row that another transaction has since deleted, and as one
        inserted in its place. The planner takes keys for unique, so that what a view shows then depends on its plan."""
        result = yield Step(self.test.twice)
        self.doubtful = self.doubtful or result.rows == [["t"]]
        return result

    def apply_settings(self):
        for k, v in self.settings.items():
            self.must(f"SET {k} = {literal(v) if k != 'DateStyle' else v}")

    # The scheduler's side

    def advance(self):
        """Sends the next statement of the program; False where it has none left."""
        if self.program is None:
            self.program = self.test.choose_program(self)
            step = next(self.program, None)
        else:
            try:
                step = self.program.send(self.result)
            except StopIteration:
                step = None
        if step is None:
            self.program = None
            return False
        if step.sql.startswith("BEGIN"):
            self.snapshot = None if "READ COMMITTED" in step.sql else "next"
            step.patient = step.patient or self.snapshot is not None
        self.mark = self.test.upheavals
        if self.snapshot == "next" and not step.sql.startswith(("BEGIN", "SET")):
            self.snapshot = self.mark
        if isinstance(self.snapshot, int):
            self.mark = self.snapshot
        if step.mark is not None:
            self.mark = step.mark
        self.test.log(self, step)
        if step.upheaval:
            self.test.upheavals += 1
        self.send(step)
        self.busy = True
        self.since = time.monotonic()
        return True

    def ended(self):
        """The statement has ended: judge it."""
        self.busy = False
        if self.step.upheaval:
            self.test.upheavals += 1
        if self.step.sql.startswith(("COMMIT", "ROLLBACK;", "PREPARE TRANSACTION")) and self.result.ok:
            self.snapshot = None
        self.test.judge(self)

    # Choices

    def chance(self, p):
        return self.rng.random() < p

    def of(self, values):
        return self.rng.choice(values)


class Scheduler:
    """Chooses who goes on, and judges what comes back. A test says who does what (choose_program)."""

    def __init__(self, oracle, options):
        self.oracle, self.seed, self.seconds = oracle, options.seed, options.seconds
        self.conninfo = f"dbname={options.dbname} application_name={options.dbname}"  # the server is the environment's
        self.rng = random.Random(self.seed)
        self.overlap = 0.3 if self.seed % 2 else 0.0
        self.number = 0
        self.history = collections.deque(maxlen=600)
        self.counts, self.states, self.misses, self.warnings = (collections.Counter() for _ in range(4))
        self.upheavals = 0
        self.prepared = []
        self.sessions = []
        self.log_file = open(options.log, "w") if options.log else None

    def choose_program(self, session):
        raise NotImplementedError

    def allowed(self, session):
        """Whether the error that a session met is one that its statement could meet without us."""
        return session.result.state in EXPECTED

    def turn(self, working):
        """One of those that are idle goes on with what he does, or begins if he is one of `working`."""
        idle = [s for s in self.sessions if not s.busy and (s.program or s in working)]
        if not idle:
            self.wait_for_any()
            return
        session = self.rng.choice(idle)
        if session.advance():
            self.let_go(session)

    def wind_up(self):
        """Everybody finishes what he began; nobody begins."""
        while any(s.busy or s.program for s in self.sessions):
            self.collect(0.05)
            while self.prepared:
                self.resolve()
            for s in self.sessions:
                if not s.busy and s.program and s.advance():
                    self.let_go(s)
        while self.prepared:
            self.resolve()

    def log(self, session, step):
        self.number += 1
        self.history.append([self.number, session.name, session.pid, step.sql, None])
        session.entry = self.history[-1]
        if self.log_file:
            print(self.number, session.name, step.sql, file=self.log_file, flush=True)

    def let_go(self, session):
        """Waits until the statement has ended or waits for a lock, or not at all."""
        if not session.step.patient and self.rng.random() < self.overlap:
            if "refresh(" in session.step.sql and self.rng.random() < 0.3:
                session.cancelled_at = self.number
                session.finished(self.rng.random() * 0.02)
                session.pg.get_cancel().cancel()
            return
        end = time.monotonic() + 60
        while not session.finished(0.002):
            if self.control.must(f"SELECT FROM pg_stat_activity WHERE pid = {session.pid} AND wait_event_type = 'Lock'"):
                self.counts["lock waits"] += 1
                session.entry[4] = "waits"
                return
            if time.monotonic() > end:
                raise Failed(f"{session.name} has been running for a minute: {session.step.sql}")
        session.ended()

    def collect(self, timeout):
        busy = [s for s in self.sessions if s.busy]
        if not busy:
            return
        if timeout:
            select.select([s.pg.socket for s in busy], [], [], timeout)
        for session in busy:
            if session.finished(0):
                session.ended()

    def wait_for_any(self):
        """Everybody waits: mostly for a prepared transaction."""
        self.collect(0.2)
        if any(s.busy for s in self.sessions):
            if self.prepared:
                self.resolve()
            for s in self.sessions:
                if s.busy and time.monotonic() - s.since > 45:
                    raise Failed(f"{s.name} hangs: {s.step.sql}\n{self.locks()}")

    def locks(self):
        rows = self.control.must("SELECT pid, wait_event_type, wait_event, pg_blocking_pids(pid), left(query, 120) FROM pg_stat_activity WHERE datname = current_database()")
        return "\n".join(map(str, rows))

    def resolve(self):
        name = self.prepared.pop(self.rng.randrange(len(self.prepared)))
        sql = f"{self.rng.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} PREPARED '{name}'"
        self.number += 1
        self.history.append([self.number, "control", 0, sql, None])
        self.control.must(sql)
        self.counts["prepared"] += 1

    # The judge

    def judge(self, session):
        step, result = session.step, session.result
        self.counts["statements"] += 1
        session.entry[4] = "ok" if result.ok else f"{result.state} {result.message[:200]}"
        excused = self.upheavals != session.mark or session.doubtful
        if result.state:
            self.states[result.state] += 1
            self.counts["deadlocks in our own statements"] += result.state == "40P01" and any(
                ours in result.message for ours in ("SKIP LOCKED", "profile_cache.pending", "profile_cache.epoch_progress", "profile_cache.claim")
            )
            if result.state == MISMATCH:
                if excused:
                    self.counts["excused"] += 1
                    return
                raise Failed(f"inside a statement, {session.name}: {result.message}\n{self.evidence(session)}")
            # A cancel may arrive after the statement that it was meant for.
            hurried = session.hurry or step.hurry or self.number - session.cancelled_at < 200
            if not (self.allowed(session) or (result.state == "57014" and hurried)):
                raise Failed(f"unexpected SQLSTATE, {session.name}: {result.state} {result.message}\n{step.sql}")
            return
        if step.sql.startswith("COMMIT") and result.tag == "COMMIT":
            self.counts["transactions"] += 1
        elif "refresh(" in step.sql:
            self.counts["refreshes"] += 1
        if step.kind == "oracle":
            self.counts["checks"] += 1
            for key, source, reason, got, wanted in result.rows:
                self.counts["hits"] += source == "cache"
                if source != "cache":
                    self.misses[reason] += 1
                if got != wanted:
                    if excused:
                        self.counts["excused"] += 1
                        continue
                    raise Failed(
                        f"get_profile({key}) differs from the view in {session.name} (served from {source}: {reason})\n"
                        f"got      {got}\nexpected {wanted}\n{self.evidence(session, key)}"
                    )
        elif step.kind == "verify":
            self.counts["verifies"] += 1
            if result.rows and not excused:
                raise Failed(f"verify() in {session.name}: {result.rows}\n{self.evidence(session, result.rows[0][0])}")
        elif step.kind == "check":
            self.counts["checks"] += 1

    def evidence(self, session, key=None):
        """What can be seen of it, in the session (where its transaction lives on) and outside."""
        where = f"WHERE {self.oracle.key} = '{key}'" if key else ""
        queries = [
            "SELECT now(), pg_current_snapshot(), pg_current_xact_id_if_assigned(), current_setting('transaction_isolation')",
            f"SELECT xmin, xmax, ctid, {self.oracle.key}, cached_profile_epoch, cached_profile_valid_until, profile_cache_updated_at, cached_profile FROM {self.oracle.table} {where}",
            "SELECT * FROM profile_cache.pending", "SELECT * FROM profile_cache.epoch_progress", "SELECT * FROM profile_cache.unmatched_key",
            "SELECT * FROM profile_cache.claim",
        ]  # fmt: skip
        lines = []
        for connection in (session, self.control):
            if connection.pg.transaction_status == pq.TransactionStatus.INERROR:
                continue
            lines.append(f"-- as {connection.name} sees it")
            for sql in queries:
                result = connection.run(sql)
                lines += [sql] + ["   " + " | ".join(str(v)[:300] for v in row) for row in result.rows] + ([result.message] if result.message else [])
        lines += ["-- prepared: " + str(self.control.must("SELECT gid, transaction FROM pg_prepared_xacts")), "-- activity", self.locks()]
        return "\n".join(lines)


def arguments(description, *more):
    """What every such test is told on its command line; more: names of further arguments."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("dbname", *more):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--log", help="a file for every statement as it is sent")
    return parser.parse_args()


def main(test):
    """Runs a test; where it fails, says after which statements, and exits with 1."""
    try:
        test.set_up()
        test.run()
        test.finish()
    except (Failed, OperationalError) as failure:  # the latter: a connection was lost
        print("the last statements (number, session, backend, statement, outcome):")
        oracles = (test.oracle.by_view, test.oracle.by_function)
        for number, session, pid, sql, outcome in list(test.history)[-200:]:
            print(number, session, pid, "oracle" if sql in oracles else sql, "->", outcome)
        print(f"\nseed {test.seed}, step {test.number}\n{failure}")
        if test.sessions:  # it got as far as that
            test.figures()
        sys.exit(Vacuous.STATUS if isinstance(failure, Vacuous) else 1)
    test.figures()
