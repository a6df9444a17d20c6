//! verify and status: what is true of the cache, from the tables and the catalogs.
//!
//! Invariant: both judge rows by the reader's own rule ([`Judge`]); neither keeps more than a page of
//! rows in memory.

use crate::attachment::{self, Attached, Distrust, State};
use crate::definition::display;
use crate::document;
use crate::error::check_interrupts;
use crate::iso8601::iso8601;
use crate::pending::{self, Anyone, Judge, Looked, PendingKeys};
use crate::pg::identity::Pinned;
use crate::pg::spi::{self, Arg, At};
use crate::pg::value::{Uuid, Value, scratch};
use crate::pg::{catalog, tuple};
use crate::refresh::{RUN, TURN};
use crate::rights::{as_ourselves, as_owner};
use crate::settings;
use crate::xact_state;

const PAGE: i64 = 500;
/// Blocks of the profile table that `status` reads at most; of a larger one it takes a sample.
const BLOCKS: f64 = 2000.0;

/// Compares stored documents that a reader would be served, and what it would be served, with the
/// view; `sample`: that many profiles, from a random place in key order on. Reports problems.
pub fn verify(
    a: &Attached,
    sample: Option<i64>,
    mut report: impl FnMut(&Uuid, &str, Option<Value>, Option<Value>),
) {
    let _pinned = Pinned::new();
    let checked = Checked::new(a);
    let mut left = sample.unwrap_or(i64::MAX);
    let mut after = sample.and_then(|_| random_key(a));
    let mut wrapped = sample.is_none();
    let start = after;
    while left > 0 {
        check_interrupts();
        let (n, last) = scratch(|| {
            let page = keys_of_page(a, after, left.min(PAGE));
            // A sample ends where it began.
            let until = start.filter(|_| wrapped && sample.is_some());
            let within = page.partition_point(|key| until.is_none_or(|until| *key <= until));
            checked.compare(page.get(..within).unwrap_or_default(), &mut report);
            (page.len() as i64, page.last().copied())
        });
        left -= n;
        after = last;
        let past_start = wrapped && start.is_some() && after > start;
        if after.is_none() || past_start {
            if wrapped {
                break;
            }
            wrapped = true;
        }
    }
}

fn keys_of_page(a: &Attached, after: Option<Uuid>, size: i64) -> Vec<Uuid> {
    let _owner = as_owner(a.owner);
    let args = [Arg::uuid(after.as_ref()), Arg::int8(Some(size))];
    let keys = spi::all(&a.sql.page(), At::Active, &args, |r| r.uuid(1));
    keys.into_iter().flatten().collect()
}

/// What `verify` compares with, of the caller's snapshot.
struct Checked<'a> {
    a: &'a Attached,
    judge: Judge,
    keys: PendingKeys,
}

impl<'a> Checked<'a> {
    fn new(a: &'a Attached) -> Checked<'a> {
        Checked { a, judge: Judge::new(a), keys: PendingKeys::load(a, At::Active) }
    }

    /// Compares these profiles with the view. One for which the view raises is reported, and the others go on.
    fn compare(
        &self,
        keys: &[Uuid],
        report: &mut impl FnMut(&Uuid, &str, Option<Value>, Option<Value>),
    ) {
        if keys.is_empty() {
            return;
        }
        let view = |keys: &[Uuid]| self.with_view(keys);
        document::contained(keys, view, |keys, found| match found {
            Ok(rows) => {
                for row in rows {
                    let Some(key) = row.looked.key else { continue };
                    if row.n > 1 {
                        let problem = "the view has more than one row for it";
                        report(&key, problem, None, row.expected);
                    } else if self.trusted(&row.looked) && !same(row.stored, row.expected) {
                        let problem = "the cached document differs from the view's";
                        report(&key, problem, row.stored, row.expected);
                    }
                }
            }
            Err(failure) => {
                let problem = format!("the view fails with SQLSTATE {}", failure.sqlstate);
                for key in keys {
                    report(key, &problem, self.served(key), None);
                }
            }
        });
    }

    /// These profiles beside the view.
    fn with_view(&self, keys: &[Uuid]) -> Vec<Compared> {
        let (named, args) = self.keys.named(self.a, 2);
        let args: Vec<Arg> = std::iter::once(Arg::uuids(keys)).chain(args).collect();
        let _owner = as_owner(self.a.owner);
        spi::all(&self.a.sql.compared(&named), At::Active, &args, |r| Compared {
            looked: self.look(r),
            stored: r.jsonb(8),
            expected: r.jsonb(9),
            n: r.int8(10).unwrap_or(0),
        })
    }

    /// The stored document that a reader would be served.
    fn served(&self, key: &Uuid) -> Option<Value> {
        let (named, args) = self.keys.named(self.a, 2);
        let args: Vec<Arg> = std::iter::once(Arg::uuid(Some(key))).chain(args).collect();
        let _owner = as_owner(self.a.owner);
        let sql = self.a.sql.stored(&named);
        let row = spi::one(spi::point(&sql), At::Active, &args, |r| (self.look(r), r.jsonb(8)));
        let (looked, stored) = row?;
        stored.filter(|_| self.trusted(&looked))
    }

    fn look(&self, r: &spi::Row) -> Looked {
        Looked::from_row(r, self.a, |names| self.keys.any(names))
    }

    /// Whether a reader would be served the stored document.
    fn trusted(&self, looked: &Looked) -> bool {
        self.a.distrust.is_none() && !xact_state::unsure() && self.judge.of(looked).is_ok()
    }
}

/// A profile, and what the view says of it: a document, and how many rows there are.
struct Compared {
    looked: Looked,
    stored: Option<Value>,
    expected: Option<Value>,
    n: i64,
}

/// Equal to the byte: jsonb's own equality takes 1.0 for 1.00.
fn same(a: Option<Value>, b: Option<Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.same_image(b),
        (None, None) => true,
        _ => false,
    }
}

/// A key of the table's own, at random: from a few blocks of it.
fn random_key(a: &Attached) -> Option<Uuid> {
    let _owner = as_owner(a.owner);
    let share = (20.0 / blocks(a).max(1) as f64).min(1.0);
    spi::one(&a.sql.random_key(), At::Active, &[Arg::float4(100.0 * share as f32)], |r| r.uuid(1))
        .flatten()
}

fn blocks(a: &Attached) -> i64 {
    spi::one(
        "SELECT pg_catalog.pg_relation_size($1) OPERATOR(pg_catalog./) \
         pg_catalog.current_setting('block_size')::pg_catalog.int8",
        At::Active,
        &[Arg::oid(a.profile)],
        |r| r.int8(1),
    )
    .flatten()
    .unwrap_or(0)
}

/// Rows, cached, stale; and whether they were counted or estimated.
struct Counts {
    rows: i64,
    cached: i64,
    stale: i64,
    exact: bool,
    /// Pending keys that a reader takes as naming any profile; or more than are looked at here.
    anyone: Option<Anyone>,
}

fn counts(a: &Attached) -> Counts {
    let judge = Judge::new(a);
    let keys = PendingKeys::load(a, At::Active);
    let (named, args) = keys.named(a, 2);
    let _owner = as_owner(a.owner);
    let share = (BLOCKS / blocks(a).max(1) as f64).min(1.0);
    let mut all = vec![Arg::float4(100.0 * share as f32)];
    all.extend(args);
    let (mut rows, mut cached) = (0, 0);
    spi::query(&a.sql.sampled(&named), At::Active, &all, |r| {
        rows += 1;
        let looked = Looked::from_row(r, a, |names| keys.any(names));
        cached += i64::from(a.distrust.is_none() && judge.of(&looked).is_ok());
    });
    // What the blocks that were read hold stands for the others. What ANALYZE has left behind does not: a
    // refresh doubles the blocks of a table, and not its rows.
    let of_all = |n: i64| (n as f64 / share).round() as i64;
    let (rows, cached) = (of_all(rows), of_all(cached));
    Counts { rows, cached, stale: rows - cached, exact: share >= 1.0, anyone: keys.anyone() }
}

/// What is attached, and whether its profile table could be locked for reading: who asks what is the matter
/// must not be made to wait for it.
fn attached() -> (State, bool) {
    loop {
        check_interrupts();
        catalog::accept_invalidations();
        let state = attachment::load();
        let State::Ready(a) = &state else {
            return (state, false);
        };
        let indexes = a.read.iter().copied();
        let mut indexes = indexes.filter(|r| catalog::table_of_index(*r) == Some(a.profile));
        let free =
            tuple::try_lock_for_reading(a.profile) && indexes.all(tuple::try_lock_for_reading);
        if !attachment::changed() {
            return (state, free);
        }
    }
}

/// The columns of `profile_cache.status`, in order.
pub fn status() -> Vec<Option<Value>> {
    let (state, free) = attached();
    let none = || None::<Value>;
    let (mut profile, mut document, mut tables, mut disabled) = (none(), none(), none(), none());
    let mut count = None;
    if let State::Ready(a) = &state {
        let name = |oid| catalog::relation_name(oid).map(|(s, n)| display(&s, &n));
        profile = name(a.profile).and_then(|n| Value::text(&n));
        document = name(a.document).and_then(|n| Value::text(&n));
        let used = a.definition.tables.iter();
        let names: Vec<String> = used.map(|t| display(&t.schema, &t.name)).collect();
        tables = Value::texts(&names);
        if let Some(Distrust::Triggers(missing)) = &a.distrust {
            disabled = Value::texts(missing);
        }
        count = free.then(|| counts(a));
    }
    let us = !matches!(state, State::None);
    let waiting = if us { waiting() } else { Default::default() };
    let refreshed = if us { last_refresh() } else { Default::default() };
    let held_up_by = holders();
    let warnings = warnings(&state, count.as_ref(), &waiting, &refreshed, &held_up_by);
    let names: Vec<String> = held_up_by.iter().map(|h| h.name.clone()).collect();
    let int = |n: i64| us.then(|| Value::int8(n));
    vec![
        profile,
        document,
        tables,
        count.as_ref().map(|c| Value::int8(c.rows)),
        count.as_ref().map(|c| Value::int8(c.cached)),
        count.as_ref().map(|c| Value::int8(c.stale)),
        count.as_ref().map(|c| Value::bool(c.exact)),
        int(waiting.keys),
        int(waiting.epochs),
        waiting.oldest().map(Value::timestamptz),
        Value::texts(&names),
        disabled.or_else(|| Value::texts(&[])),
        int(waiting.failures),
        Some(Value::bool(settings::enabled())),
        Some(Value::bool(settings::preloaded())),
        Value::text(
            "none: this version has no background worker; schedule CALL profile_cache.refresh()",
        ),
        refreshed.completed_at.map(Value::timestamptz),
        refreshed.outcome.as_deref().and_then(Value::text),
        Value::texts(&warnings),
    ]
}

/// What wants attention: what is so, since when, and the one command that helps.
fn warnings(
    state: &State,
    count: Option<&Counts>,
    waiting: &Waiting,
    refreshed: &LastRefresh,
    held_up_by: &[Transaction],
) -> Vec<String> {
    let mut warnings = disabled_reads();
    let refresh = refresh_call();
    let again = "run profile_cache.attach() again, with the same arguments";
    match state {
        State::None => {
            warnings.push("nothing is attached: run SELECT profile_cache.attach()".into());
            return warnings;
        }
        State::Gone(gone) => {
            let (message, hint) = gone.clone().error().message_and_hint();
            warnings.push(format!("reads fail: {message}. {hint}"));
        }
        State::Ready(a) => match &a.distrust {
            Some(Distrust::Triggers(_)) => warnings.push(format!(
                "triggers are missing or not ENABLE ALWAYS, so reads use the view: {again}"
            )),
            Some(Distrust::Problem(why)) => {
                warnings.push(format!("reads use the view: {why}; {again}"));
            }
            Some(Distrust::Unfit { why, advice }) => {
                warnings.push(format!("reads use the view: {why}; {advice}"));
            }
            None if a.epochs.current().is_none() => warnings
                .push(format!("the current epoch is lost, so reads use the view: {refresh}")),
            None => warnings.extend(all_live(count, waiting, refreshed, &refresh)),
        },
    }
    if waiting.failures > 0 {
        let least = if waiting.failures_full { "at least " } else { "" };
        warnings.push(format!(
            "the document of {least}{} profile(s) could not be computed or written{}, last with SQLSTATE {}: \
             SELECT * FROM profile_cache.failure",
            waiting.failures,
            since(waiting.failing_since),
            waiting.sqlstate.as_deref().unwrap_or("?")
        ));
    }
    let something = waiting.keys + waiting.epochs > 0 || count.is_none_or(|c| c.stale > 0);
    // Where nothing would be trusted, refresh does nothing, and what is said of that is enough.
    let distrusted = matches!(state, State::Ready(a) if a.distrust.is_some());
    warnings.extend(refreshed.warning(&refresh).filter(|_| !distrusted));
    for held in held_up_by {
        warnings.push(format!("refresh waits for the end of {}", held.and_how_to_end_it()));
    }
    if let State::Ready(a) = state
        && something
    {
        for (tables, holder) in lockers(a) {
            let so = if count.is_none() {
                "reads may wait"
            } else {
                "changes stay pending, and refresh computes nothing"
            };
            warnings
                .push(format!("{so} while {tables} is locked by {}", holder.and_how_to_end_it()));
        }
        // Whatever refresh could take it has taken: the others' rows are held.
        if let Some(at) = waiting.oldest_key
            && refreshed.came_through_since(at)
            && held_up_by.is_empty()
        {
            for holder in writers_before(a, refreshed.completed_at) {
                warnings.push(format!(
                    "profiles are pending{} that refresh has not been able to lock, which may be held by {}",
                    since(Some(at)),
                    holder.and_how_to_end_it()
                ));
            }
        }
    }
    for name in disabled_event_triggers() {
        warnings.push(format!(
            "event trigger {name} is not ENABLE ALWAYS, so DDL may go unnoticed: enable it, then run \
             SELECT profile_cache.invalidate_all()"
        ));
    }
    warnings
}

fn since(at: Option<i64>) -> String {
    at.map_or_else(String::new, |at| format!(" since {}", iso8601(at)))
}

/// What has refresh run.
fn refresh_call() -> String {
    let _us = as_ourselves();
    let standby = spi::one("SELECT pg_catalog.pg_is_in_recovery()", At::Active, &[], |r| r.bool(1));
    let place = if standby.flatten() == Some(true) { " on the primary" } else { "" };
    format!("CALL profile_cache.refresh(){place}")
}

/// Why reads of many profiles, or of all, use the view although nothing else is wrong.
fn all_live(
    count: Option<&Counts>,
    waiting: &Waiting,
    refreshed: &LastRefresh,
    refresh: &str,
) -> Vec<String> {
    let mut all = vec![];
    let changed = since(waiting.oldest_epoch);
    let something = waiting.keys + waiting.epochs > 0 || count.is_some_and(|c| c.stale > 0);
    if refreshed.completed_at.is_none() && something {
        // One that has begun and ended is told of where refresh is.
        match (refreshed.began_at, refreshed.under_way) {
            (_, Some(true)) => all.push(
                "the first refresh is under way, and reads of profiles that it has not come to yet use the view: \
                 wait for it"
                    .into(),
            ),
            (None, _) => all.push(format!(
                "refresh has never come through, so reads use the view: {refresh}, and have it called every minute"
            )),
            (Some(_), _) => {}
        }
        return all;
    }
    if waiting.epochs > pending::MOST as i64 {
        all.push(format!(
            "more changes are pending{changed} than a read looks at ({} of {}), so all reads use the view: {refresh}",
            pending::MOST,
            waiting.epochs
        ));
    } else if waiting.unnumbered {
        all.push(format!(
            "a change that may concern any profile is pending{changed}, so all reads use the view: {refresh}"
        ));
    } else if waiting.unpassed {
        all.push(format!(
            "a change that may concern any profile is pending{changed}, and reads of those that refresh has not \
             come to yet use the view: {refresh}"
        ));
    }
    let keys = since(waiting.oldest_key);
    match count.and_then(|c| c.anyone) {
        Some(Anyone::Unknown) => all.push(format!(
            "keys are pending{keys} that may name any profile, so all reads use the view: {refresh}"
        )),
        Some(Anyone::TooMany) => all.push(format!(
            "too many profiles are pending{keys} to be looked at here; what `cached` counts is too low: {refresh}"
        )),
        None => {}
    }
    all
}

/// Where the setting keeps reads from the cache: in this session, or in those of some roles.
fn disabled_reads() -> Vec<String> {
    let mut found = vec![];
    if !settings::enabled() {
        found.push(
            "profile_cache.enabled is off in this session, so reads use the view: SET profile_cache.enabled = on"
                .into(),
        );
    }
    let _us = as_ourselves();
    found.extend(spi::all(
        "SELECT format('profile_cache.enabled is off for %s, whose reads use the view: ALTER %1$s RESET profile_cache.enabled', \
           concat_ws(' ', CASE WHEN r.oid IS NULL THEN 'DATABASE ' || quote_ident(current_database()) ELSE 'ROLE ' || quote_ident(r.rolname) END, \
            CASE WHEN r.oid IS NOT NULL AND s.setdatabase <> 0 THEN 'IN DATABASE ' || quote_ident(current_database()) END)) \
         FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS c(line) LEFT JOIN pg_roles AS r ON r.oid = s.setrole \
         WHERE (s.setdatabase = 0 OR s.setdatabase = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())) \
          AND c.line ~* '^profile_cache[.]enabled=(of|off|f|fa|fal|fals|false|n|no|0)$' ORDER BY 1",
        At::Active,
        &[],
        |r| r.text(1).unwrap_or_default(),
    ));
    found
}

fn disabled_event_triggers() -> Vec<String> {
    let _us = as_ourselves();
    spi::all(
        "SELECT t.evtname::text FROM pg_event_trigger AS t JOIN pg_proc AS f ON f.oid = t.evtfoid \
         WHERE f.pronamespace = 'profile_cache'::regnamespace AND t.evtenabled <> 'A' ORDER BY 1",
        At::Active,
        &[],
        |r| r.text(1).unwrap_or_default(),
    )
}

/// What waits for refresh, and what has failed.
#[derive(Default)]
struct Waiting {
    keys: i64,
    oldest_key: Option<i64>,
    epochs: i64,
    oldest_epoch: Option<i64>,
    /// One of the epochs has no number.
    unnumbered: bool,
    /// One has had no complete pass.
    unpassed: bool,
    failures: i64,
    /// No more of them are remembered.
    failures_full: bool,
    failing_since: Option<i64>,
    sqlstate: Option<String>,
}

impl Waiting {
    fn oldest(&self) -> Option<i64> {
        self.oldest_key.into_iter().chain(self.oldest_epoch).min()
    }
}

fn waiting() -> Waiting {
    let _us = as_ourselves();
    spi::one(
        "SELECT k.*, e.*, f.* FROM \
          (SELECT count(*), min(p.created_at) FROM profile_cache.pending_key AS p) AS k, \
          (SELECT count(*), min(p.created_at), coalesce(bool_or(p.epoch IS NULL), false), coalesce(bool_or(d.passed_to IS NULL), false) \
           FROM profile_cache.pending_epoch AS p LEFT JOIN profile_cache.drain AS d ON d.epoch = p.epoch) AS e, \
          (SELECT count(DISTINCT x.user_id), count(*), min(x.failed_at), (array_agg(x.sqlstate ORDER BY x.failed_at DESC))[1] \
           FROM profile_cache.failure AS x) AS f",
        At::Active,
        &[],
        |r| Waiting {
            keys: r.int8(1).unwrap_or(0),
            oldest_key: r.timestamptz(2),
            epochs: r.int8(3).unwrap_or(0),
            oldest_epoch: r.timestamptz(4),
            unnumbered: r.bool(5) == Some(true),
            unpassed: r.bool(6) == Some(true),
            failures: r.int8(7).unwrap_or(0),
            failures_full: r.int8(8).unwrap_or(0) >= pending::MOST_FAILURES,
            failing_since: r.timestamptz(9),
            sqlstate: r.text(10),
        },
    )
    .unwrap_or_default()
}

/// How refresh fared last.
#[derive(Default)]
struct LastRefresh {
    began_at: Option<i64>,
    completed_at: Option<i64>,
    outcome: Option<String>,
    /// A call is at it now. None on a standby, where the primary's locks are not to be seen.
    under_way: Option<bool>,
}

impl LastRefresh {
    /// What the last call has not done.
    fn warning(&self, refresh: &str) -> Option<String> {
        let began = iso8601(self.began_at?);
        if let Some(outcome) = &self.outcome {
            return Some(format!(
                "the last refresh, begun at {began}, has left something undone ({outcome}): {refresh}"
            ));
        }
        if self.began_at <= self.completed_at {
            return None;
        }
        let so_far = match self.under_way {
            Some(true) => return None,
            Some(false) => "was cut short",
            None => "has not come through so far",
        };
        let before = self.completed_at.map_or_else(
            || "none has come through".into(),
            |at| format!("the last that came through did at {}", iso8601(at)),
        );
        Some(format!("the last refresh, begun at {began}, {so_far}, and {before}: {refresh}"))
    }

    /// Whether one that began after `at` has come through.
    fn came_through_since(&self, at: i64) -> bool {
        self.began_at.is_some_and(|began| began > at) && self.completed_at >= self.began_at
    }
}

fn last_refresh() -> LastRefresh {
    let _us = as_ourselves();
    // A call excludes others by its session's lock on `pending`.
    let found = spi::one(
        &format!(
            "SELECT l.began_at, l.completed_at, l.outcome, NOT pg_is_in_recovery(), EXISTS (SELECT FROM pg_locks AS k WHERE {TURN}) \
             FROM (SELECT) AS one LEFT JOIN profile_cache.last_refresh AS l ON true"
        ),
        At::Active,
        &[],
        |r| LastRefresh {
            began_at: r.timestamptz(1),
            completed_at: r.timestamptz(2),
            outcome: r.text(3),
            under_way: r.bool(5).filter(|_| r.bool(4) == Some(true)),
        },
    );
    found.unwrap_or_default()
}

/// A transaction of somebody's.
struct Transaction {
    /// `pid …`, or `prepared transaction …`.
    name: String,
    /// Which program's it is.
    of: Option<String>,
    since: Option<i64>,
    /// What ends it.
    end: String,
}

impl Transaction {
    /// The columns of [`TRANSACTIONS`].
    fn from_row(r: &spi::Row) -> Transaction {
        Transaction {
            name: r.text(1).unwrap_or_default(),
            of: r.text(2),
            since: r.timestamptz(3),
            end: r.text(4).unwrap_or_default(),
        }
    }

    fn and_how_to_end_it(&self) -> String {
        let of = self.of.as_deref();
        let of = of.map_or_else(String::new, |of| format!(" ({of})"));
        format!("{}{of}{}: {}", self.name, since(self.since), self.end)
    }
}

/// Of rows `l` of `pg_locks`, grouped by their transaction: its name, program, beginning, and what ends it. The
/// rows need not have the prepared ones' own.
const TRANSACTIONS: &str = "coalesce('prepared transaction ' || max(x.gid), 'pid ' || max(l.pid), l.virtualtransaction), \
   coalesce(nullif(max(s.application_name), ''), nullif(max(s.backend_type), 'client backend')), \
   coalesce(max(x.prepared), max(s.xact_start)), \
   coalesce('COMMIT PREPARED ' || quote_literal(max(x.gid)) || ' or ROLLBACK PREPARED', 'SELECT pg_terminate_backend(' || max(l.pid) || ')') ";

/// Whose rows these are.
const WHOSE: &str = " LEFT JOIN pg_locks AS t ON t.virtualtransaction = l.virtualtransaction AND t.locktype = 'transactionid' AND l.pid IS NULL \
   LEFT JOIN pg_prepared_xacts AS x ON x.transaction = t.transactionid \
   LEFT JOIN pg_stat_get_activity(NULL) AS s ON s.pid = l.pid ";

/// The transactions whose end refresh waits for. Their names are of the run of the server that noted them: in
/// another, somebody else's transaction has them; but for that of a prepared one after a restart.
fn holders() -> Vec<Transaction> {
    let _us = as_ourselves();
    spi::all(
        &format!(
            "SELECT {TRANSACTIONS} FROM pg_locks AS l {WHOSE} WHERE l.virtualtransaction IN \
              (SELECT h.v FROM (SELECT d.server_start, unnest(d.holders) FROM profile_cache.drain AS d \
                UNION ALL SELECT b.server_start, unnest(b.holders) FROM profile_cache.absent AS b) AS h(run, v) \
               WHERE h.run = {RUN} OR h.v LIKE '-1/%') \
             GROUP BY l.virtualtransaction ORDER BY 1"
        ),
        At::Active,
        &[],
        Transaction::from_row,
    )
}

/// The transactions that hold locks with which nothing can be computed, and on what.
fn lockers(a: &Attached) -> Vec<(String, Transaction)> {
    let _us = as_ourselves();
    spi::all(
        &format!(
            "SELECT {TRANSACTIONS}, string_agg(DISTINCT l.relation::regclass::text, ', ') FROM pg_locks AS l {WHOSE} \
             WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() \
              AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) \
              AND (l.mode = 'AccessExclusiveLock' AND l.relation = ANY ($2) OR l.relation = $1 AND l.mode IN \
               ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')) \
             GROUP BY l.virtualtransaction ORDER BY 1"
        ),
        At::Active,
        &[Arg::oid(a.profile), Arg::oids(&a.read)],
        |r| (r.text(5).unwrap_or_default(), Transaction::from_row(r)),
    )
}

/// The transactions that have been writing profiles since before then.
fn writers_before(a: &Attached, at: Option<i64>) -> Vec<Transaction> {
    let _us = as_ourselves();
    let writers = spi::all(
        &format!(
            "SELECT {TRANSACTIONS} FROM pg_locks AS l {WHOSE} \
             WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() \
              AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) \
              AND l.relation = $1 AND l.mode IN ('RowShareLock', 'RowExclusiveLock') \
             GROUP BY l.virtualtransaction ORDER BY 1"
        ),
        At::Active,
        &[Arg::oid(a.profile)],
        Transaction::from_row,
    );
    let old = |t: &Transaction| t.since < at;
    writers.into_iter().filter(old).collect()
}
