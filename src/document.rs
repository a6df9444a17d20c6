//! Lock, compute, write: how a stored document comes to be.
//!
//! Invariant, in this order: ROW EXCLUSIVE on the profile table; the rows locked, skipping what others
//! hold or (under one snapshot) have written; then a new snapshot that gives both the documents and the
//! stamp; then a look at the latest committed epoch, and no stamp where it has moved on; then the
//! write, even of an equal document, so that an older REPEATABLE READ transaction runs into it.
//! write/README.md has the interleaving that breaks each shorter form (W2 to W6).
//!
//! Rules: W2, W3, W4, W5, W6, W7, W10, W13, W14, W17, E12, E20, B11.

use crate::attachment::{self, Attached, State};
use crate::definition::Step;
use crate::error::check_interrupts;
use crate::failures;
use crate::pg::guard::LocalSettings;
use crate::pg::locks;
use crate::pg::scan::{Columns, UniqueIndexLookup};
use crate::pg::spi::{self, ActiveSnapshot, Arg, Snapshot};
use crate::pg::tuple::{Locker, Stored, Writer};
use crate::pg::value::{Uuid, Value, array};
use crate::pg::xact::Failure;
use crate::pg::{Oid, catalog, xact};
use crate::rights::as_owner;
use crate::stats::{self, Counter};
use crate::xact_state;
use pgrx::pg_sys::ItemPointerData;
use std::collections::{HashMap, HashSet};

/// Profiles that are to be computed anew: those whose `step` columns equal one of `values`.
pub struct Request<'a> {
    pub step: &'a Step,
    pub values: &'a [Vec<Value>],
    /// A way to find the row of one value without SQL.
    pub lookup: Option<&'a UniqueIndexLookup>,
}

/// Computes and stores the documents of all profiles that are asked for, of those whose row can be locked. The only
/// way to store one: the stages are types, each made of the one before, so that none can be left out.
pub fn recompute<'r>(a: &Attached, requests: &'r [Request<'r>]) -> Outcome<'r> {
    let found: Vec<Vec<Locked>> = requests.iter().map(|request| lock(a, request)).collect();
    let (stored, unwritten, late, computed) = {
        let prepared = prepare(a, found.iter().flatten());
        let computed: Vec<Uuid> = prepared.rows.iter().map(|row| row.key).collect();
        let (stored, unwritten, late) = prepared.write(a);
        (stored, unwritten, late, computed)
    };
    Outcome { requests, found, stored, unwritten, late, computed }
}

/// Takes the stamps of all profiles that are asked for, of those whose row can be locked, and computes nothing: somebody else
/// is to do that in a snapshot of later. A version of this transaction's own that has none is left as it is: who has only an older
/// snapshot runs into it as into any other (W7).
pub fn distrust<'r>(a: &Attached, requests: &'r [Request<'r>]) -> Outcome<'r> {
    let found: Vec<Vec<Locked>> = requests.iter().map(|request| lock(a, request)).collect();
    let mut seen = HashSet::new();
    let rows = found.iter().flatten().filter_map(|row| Some((row.tid, row.key?)));
    let rows = rows.filter(|(_, key)| seen.insert(*key));
    let rows = rows.map(|(tid, key)| ToWrite { tid, key, what: What::Distrust });
    let prepared = Prepared { rows: rows.collect(), trusted: 0, late: vec![] };
    let computed: Vec<Uuid> = prepared.rows.iter().map(|row| row.key).collect();
    let (stored, unwritten, late) = prepared.write(a);
    Outcome { requests, found, stored, unwritten, late, computed }
}

/// What came of it. What is left, the caller turns into pending keys.
pub struct Outcome<'r> {
    requests: &'r [Request<'r>],
    /// For each request, the rows that were locked.
    found: Vec<Vec<Locked>>,
    /// Documents stored as trusted.
    pub stored: u64,
    /// Profiles whose row could not be written; what is stored there may still bear an old stamp.
    unwritten: Vec<Uuid>,
    /// Profiles whose document has no stamp, since an epoch came while it was computed.
    late: Vec<Uuid>,
    /// Profiles whose row was to be written.
    computed: Vec<Uuid>,
}

impl Outcome<'_> {
    /// The profiles for which something was computed, or whose stamp was taken.
    pub fn computed(&self) -> impl Iterator<Item = Uuid> {
        self.computed.iter().copied()
    }

    /// Why profiles are to be computed once more, and their keys, as texts.
    pub fn left(&self) -> [(&'static str, impl Iterator<Item = Vec<String>>); 2] {
        fn texts(keys: &[Uuid]) -> impl Iterator<Item = Vec<String>> {
            keys.iter().map(|key| vec![Value::uuid(key).to_text()])
        }
        [
            ("its row could not be written", texts(&self.unwritten)),
            ("an epoch came while it was computed", texts(&self.late)),
        ]
    }

    /// The values of the request of this number by which a row was found that has now what was computed.
    pub fn done(&self, n: usize) -> Vec<Vec<Value>> {
        let undone = |key: &Uuid| self.unwritten.contains(key) || self.late.contains(key);
        let rows = self.found.get(n).into_iter().flatten();
        let done = rows.filter(|row| row.key.is_none_or(|key| !undone(&key)));
        done.filter_map(|row| row.found_by.clone()).collect()
    }

    /// Its values for which no row was locked, as texts.
    pub fn unlocked(&self, a: &Attached, n: usize) -> Vec<Vec<String>> {
        match (self.requests.get(n), self.found.get(n)) {
            (Some(request), Some(locked)) => not_locked(a, request.step, request.values, locked),
            _ => vec![],
        }
    }
}

/// A profile row, found, and once it is locked at its newest version.
struct Locked {
    tid: ItemPointerData,
    key: Option<Uuid>,
    /// The values of the step's columns that it was found by.
    found_by: Option<Vec<Value>>,
}

/// A document, or the SQLSTATE of the view's failure.
enum Computed {
    Document { document: Option<Value>, valid_until: Option<i64> },
    Failed(String),
}

/// Takes the table locks that computing needs, if they are to be had at once: whoever waited here would
/// wait with all that its transaction holds, and close a circle that is none without us.
pub fn try_locks(a: &Attached) -> bool {
    had(lock_tables(a))
}

/// Counts a lock that was not had: of tables, those of all at once as one.
fn had(had: bool) -> bool {
    if !had {
        stats::count(Counter::LocksNotHad);
    }
    had
}

/// The same of what taking stamps needs: the table and its indexes, and nothing else that the view reads.
pub fn try_lock_profile(a: &Attached) -> bool {
    let mut own = a.read.iter().copied().filter(|r| catalog::table_of_index(*r) == Some(a.profile));
    had(locks::try_lock_for_writing(a.profile) && own.all(locks::try_lock_for_reading))
}

/// The same as [`try_locks`] for a step of refresh, which tries again and counts once.
pub fn lock_tables(a: &Attached) -> bool {
    let mut read = a.read.iter().copied();
    locks::try_lock_for_writing(a.profile) && read.all(locks::try_lock_for_reading)
}

/// Locks the rows that are asked for, but for those that another transaction
/// holds or, where this one keeps one snapshot, has written since.
fn lock(a: &Attached, request: &Request) -> Vec<Locked> {
    let Request { step, values, lookup } = *request;
    if values.is_empty() {
        return vec![];
    }
    // Opened before the snapshot that finds the rows: its lock may have waited for another writer's end,
    // or for DDL, after which what is known of the columns may be wrong.
    let mut locker = Locker::open(a.profile);
    match attachment::load() {
        State::Ready(now) if now.same_columns(a) => {}
        _ => {
            locker.close();
            return vec![];
        }
    }
    let _snapshot = ActiveSnapshot::new();
    let found = match (lookup, values) {
        (Some(lookup), [one]) => find_one(a, lookup, one),
        _ => None,
    };
    let found = match found {
        Some(found) => found,
        None => {
            let found = find(a, step, values);
            // Nothing that computing needs is waited for once a row is locked.
            if !had(a.read.iter().copied().all(locks::try_lock_for_reading)) {
                locker.close();
                return vec![];
            }
            found
        }
    };
    let locked = found.into_iter().filter_map(|mut row| {
        let locked = locker.lock(row.tid, |newer| {
            // It may have become another profile's.
            let numbers = step.columns.iter();
            let mut numbers = numbers.map(|c| catalog::column_number(a.profile, &c.column));
            let same = row.found_by.iter().flatten().all(|v| {
                let number = numbers.next().flatten();
                number.is_some_and(|n| newer.holds(n, v))
            });
            (same, newer.uuid(a.key))
        });
        had(locked.is_some());
        let (tid, moved) = locked?;
        row.tid = tid;
        if let Some((same, key)) = moved {
            row.key = key;
            return same.then_some(row);
        }
        Some(row)
    });
    let locked = locked.collect();
    locker.close();
    locked
}

/// The visible row with this value, without SQL; None where that cannot be.
fn find_one(a: &Attached, probe: &UniqueIndexLookup, value: &[Value]) -> Option<Vec<Locked>> {
    let found = probe.find(a.profile, value.first()?.datum, |row| Locked {
        tid: row.tid(),
        key: row.uuid(a.key),
        found_by: Some(value.to_vec()),
    })?;
    Some(found.into_iter().collect())
}

/// The visible rows with these values; none of them where the owner may not read his own table.
fn find(a: &Attached, step: &Step, values: &[Vec<Value>]) -> Vec<Locked> {
    let sql = a.sql.find(step);
    let rows = xact::subtransaction(|| {
        let _owner = as_owner(a.owner);
        let asked = arrays_of(step, values);
        spi::all(statement(&sql, values.len()), Snapshot::Active, &asked, |r| {
            r.tid(1).map(|tid| Locked {
                tid,
                key: r.uuid(2),
                found_by: (3..).map(|i| r.value(i)).take(step.columns.len()).collect(),
            })
        })
    });
    rows.unwrap_or_default().into_iter().flatten().collect()
}

/// Documents computed for locked rows and not written yet.
struct Prepared {
    rows: Vec<ToWrite>,
    /// How many of them will be trusted.
    trusted: u64,
    /// Those that will not be, though they could be computed: an epoch came meanwhile.
    late: Vec<Uuid>,
}

impl Prepared {
    /// Writes them: how many documents are stored as trusted, whose row could not be written, who came late.
    fn write(self, a: &Attached) -> (u64, Vec<Uuid>, Vec<Uuid>) {
        let mut unwritten = vec![];
        if self.rows.is_empty() {
            return (0, unwritten, vec![]);
        }
        // Nobody trusts a number that has not been assigned, until it is.
        let newest = self.rows.iter().filter_map(|row| row.what.epoch()).max();
        debug_assert!(newest.is_none_or(|stamp| a.epochs.latest() >= Some(stamp)));
        if a.write_may_fail {
            // Indexes of the app's may refuse what we write, and must not fail its statement.
            match xact::subtransaction(|| write(a, &self.rows)) {
                Ok(skipped) => unwritten = skipped,
                Err(_) => self.rows.iter().for_each(|row| {
                    match xact::subtransaction(|| write(a, std::slice::from_ref(row))) {
                        Ok(skipped) => unwritten.extend(skipped),
                        Err(failure) => {
                            failures::failed(&row.key, &failure.sqlstate);
                            unwritten.push(row.key);
                        }
                    }
                }),
            }
        } else {
            unwritten = write(a, &self.rows);
        }
        (self.trusted.saturating_sub(unwritten.len() as u64), unwritten, self.late)
    }
}

/// One row to write.
struct ToWrite {
    tid: ItemPointerData,
    key: Uuid,
    what: What,
}

enum What {
    Store(Stored),
    /// No stamp.
    Distrust,
}

impl What {
    fn epoch(&self) -> Option<i64> {
        match self {
            What::Store(stored) => stored.epoch,
            What::Distrust => None,
        }
    }
}

/// Computes what to store in each locked row.
fn prepare<'l>(a: &Attached, rows: impl Iterator<Item = &'l Locked> + Clone) -> Prepared {
    let mut keys: Vec<Uuid> = rows.clone().filter_map(|r| r.key).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut prepared = Prepared { rows: vec![], trusted: 0, late: vec![] };
    if keys.is_empty() {
        return prepared;
    }
    let _pinned = LocalSettings::new();
    let (stamp, mut computed) = compute(a, &keys);
    // While something may change unnoticed (a trigger off, logical replication's apply), nothing is
    // stamped: what ends that state need not be DDL that we see.
    let stamp = stamp.filter(|_| a.degraded.is_none());
    // A later epoch was assigned since the snapshot: whoever assigned it has not waited for us.
    let in_time = stamp.filter(|stamp| a.epochs.latest() == Some(*stamp));
    let late = stamp.is_some() && in_time.is_none();
    let stamp = in_time;
    let updated_at = xact::now();
    for row in rows {
        let Some((key, c)) = row.key.and_then(|key| computed.remove_entry(&key)) else {
            continue;
        };
        let stored = match c {
            Computed::Document { document, valid_until } => {
                prepared.trusted += u64::from(stamp.is_some());
                valid_until.into_iter().for_each(xact_state::expires);
                if late {
                    prepared.late.push(key);
                }
                Stored { document, valid_until, epoch: stamp, updated_at }
            }
            Computed::Failed(sqlstate) => {
                failures::failed(&key, &sqlstate);
                Stored { document: None, valid_until: None, epoch: None, updated_at }
            }
        };
        prepared.rows.push(ToWrite { tid: row.tid, key, what: What::Store(stored) });
    }
    prepared
}

/// Writes the rows as the tables' owner, whose index expressions are evaluated; returns the keys of
/// those that were not, remembered as failures.
fn write(a: &Attached, work: &[ToWrite]) -> Vec<Uuid> {
    let skipped: Vec<Uuid> = {
        // No index becomes one to write into while the table is locked, and the attachment was looked at behind that lock.
        let plain = !a.write_may_fail && a.foreign_indexes.is_empty();
        // Of plain columns nothing is evaluated.
        let _owner = (!plain).then(|| as_owner(a.owner));
        let mut writer = Writer::open(a.profile, a.columns.all(), &a.foreign_indexes, plain);
        let try_it =
            plain || !writer.keeps_ours_apart() && (a.write_may_fail || !writer.may_be_refused());
        let skipped = work
            .iter()
            .filter(|row| {
                let written = try_it
                    && match &row.what {
                        What::Store(stored) => writer.write(row.tid, stored),
                        What::Distrust => writer.distrust(row.tid),
                    };
                !written
            })
            .map(|row| row.key)
            .collect();
        writer.finish();
        skipped
    };
    for key in &skipped {
        // program_limit_exceeded, as PostgreSQL would say of a row that does not fit.
        failures::failed(key, "54000");
    }
    skipped
}

/// Few keys are found by indexes; for many, a plan made for their number may be better.
fn statement(sql: &str, keys: usize) -> spi::Statement<'_> {
    const FEW: usize = 10;
    if keys <= FEW { spi::point(sql) } else { sql.into() }
}

/// Stamp and documents, of one snapshot.
fn compute(a: &Attached, keys: &[Uuid]) -> (Option<i64>, HashMap<Uuid, Computed>) {
    let _snapshot = ActiveSnapshot::new();
    // What the snapshot shows as the current epoch was numbered after whoever redefined the document had
    // told everybody: a kept plan of the view may be from before, and no lock need be new to ask.
    catalog::accept_invalidations();
    let stamp = a.epochs.current();
    let mut computed = HashMap::new();
    let view = |keys: &[Uuid]| view_rows(a, keys);
    contained(keys, view, |keys, found| match found {
        Ok(found) => computed.extend(found),
        Err(failure) => {
            let failed = |k: &Uuid| (*k, Computed::Failed(failure.sqlstate.clone()));
            computed.extend(keys.iter().map(failed));
        }
    });
    (stamp, computed)
}

/// Hands `then` what `f` makes of these keys, all at once; where that raises, of each alone, or what that raised.
pub fn contained<T>(
    keys: &[Uuid],
    f: impl Fn(&[Uuid]) -> T,
    mut then: impl FnMut(&[Uuid], Result<T, Failure>),
) {
    match xact::subtransaction(|| f(keys)) {
        Err(_) if keys.len() > 1 => {
            for key in keys.chunks(1) {
                check_interrupts();
                then(key, xact::subtransaction(|| f(key)));
            }
        }
        result => then(keys, result),
    }
}

/// The view's rows for these keys; a key without a row has the document NULL.
fn view_rows(a: &Attached, keys: &[Uuid]) -> HashMap<Uuid, Computed> {
    let _owner = as_owner(a.owner);
    let mut found: HashMap<Uuid, Computed> = keys
        .iter()
        .map(|k| (*k, Computed::Document { document: None, valid_until: None }))
        .collect();
    let mut seen = HashSet::new();
    let (sql, asked) = match keys {
        [one] => (&a.sql.compute_one, Arg::uuid(Some(one))),
        _ => (&a.sql.compute, Arg::uuids(keys)),
    };
    spi::query(statement(sql, keys.len()), Snapshot::Active, &[asked], |r| {
        if let Some(key) = r.uuid(1) {
            let c = if seen.insert(key) {
                Computed::Document { document: r.jsonb(2), valid_until: r.timestamptz(3) }
            } else {
                // cardinality_violation: two rows for one profile, and no telling which is right.
                Computed::Failed("21000".into())
            };
            found.insert(key, c);
        }
    });
    found
}

/// The values that the lock step did not return, as text; decided by what it returned. `values` are
/// distinct images, and a single column that is a step's is unique, so as many rows as values leaves
/// none over.
fn not_locked(
    a: &Attached,
    step: &Step,
    values: &[Vec<Value>],
    locked: &[Locked],
) -> Vec<Vec<String>> {
    if locked.len() == values.len() && step.columns.len() == 1 {
        return vec![];
    }
    let found: Vec<Vec<Value>> = locked.iter().filter_map(|l| l.found_by.clone()).collect();
    if found.is_empty() {
        return texts_of(values);
    }
    let mut args = arrays_of(step, values);
    args.extend(arrays_of(step, &found));
    let _owner = as_owner(a.owner);
    spi::all(&a.sql.not_locked(step), Snapshot::New, &args, |r| r.int8(1))
        .into_iter()
        .flatten()
        .filter_map(|n| values.get(usize::try_from(n - 1).ok()?))
        .map(|v| texts(v))
        .collect()
}

/// Their text forms, the same under any settings.
pub fn texts_of(values: &[Vec<Value>]) -> Vec<Vec<String>> {
    if values.is_empty() {
        return vec![];
    }
    let _pinned = LocalSettings::new();
    values.iter().map(|v| texts(v)).collect()
}

/// Each value's text form, under the settings in force.
fn texts(values: &[Value]) -> Vec<String> {
    values.iter().map(|v| v.to_text()).collect()
}

/// The values of each of the step's columns as an array. There is at least one row.
pub fn arrays_of(step: &Step, rows: &[Vec<Value>]) -> Vec<Arg> {
    let column = |i: usize| {
        let values: Vec<Value> = rows.iter().filter_map(|r| r.get(i).copied()).collect();
        let datums: Vec<_> = values.iter().map(|v| v.datum).collect();
        let oid = values.first().map_or(Oid::INVALID, |v| v.oid);
        Arg::value(array(oid, &datums))
    };
    (0..step.columns.len()).map(column).collect()
}
