//! Draining what is pending and filling what is missing, one committed batch at a time.
//!
//! Invariant: all progress is in tables (`drain`, `absent`, the documents themselves), so a cancel, a
//! crash or a second caller between two batches loses and repeats nothing. A step never waits for an
//! idle transaction: what others hold locked is skipped, and lock holders are noted and asked for
//! again later. Steps exclude each other by a lock on `drain`.

use crate::attachment::{self, Attached, Naming};
use crate::ddl;
use crate::document;
use crate::error::{Error, check_interrupts, notice};
use crate::pending;
use crate::pg::catalog;
use crate::pg::identity::current_user;
use crate::pg::spi::{self, Arg, At};
use crate::pg::value::{Uuid, Value};
use crate::pg::xact;
use crate::rights::{self, Revoke, as_ourselves, as_owner, check_owner, home};
use crate::routes::{Step, array_rows, by_column, value_columns, value_rows};
use crate::session;
use std::rc::Rc;

/// Where a refresh stands; given to each step and returned by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Epochs,
    Keys,
    Fill,
    Done,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Epochs => "epochs",
            Phase::Keys => "keys",
            Phase::Fill => "fill",
            Phase::Done => "done",
        }
    }
    pub fn parse(name: &str) -> Phase {
        match name {
            "keys" => Phase::Keys,
            "fill" => Phase::Fill,
            "done" => Phase::Done,
            _ => Phase::Epochs,
        }
    }
}

/// What one step did, and where the next one goes on.
pub struct Step1 {
    pub phase: Phase,
    pub position: Option<Uuid>,
    /// Documents stored as trusted.
    pub stored: u64,
    /// Another transaction holds a lock that computing needs.
    pub held_up: bool,
}

/// Waits for another step to end. What is attached is looked at after that.
pub fn take_turn() {
    let _us = as_ourselves();
    spi::utility("LOCK TABLE profile_cache.drain IN SHARE UPDATE EXCLUSIVE MODE");
}

/// Takes the tables' locks that computing needs, before any row's: whoever waited for one of them with rows
/// locked would keep the app from these. For the profile table it waits, with nothing in hand; the others it
/// tries, all or none. What is attached then; None, and a NOTICE, where another transaction has a lock.
fn ready(a: &Rc<Attached>) -> Option<Rc<Attached>> {
    let mut a = a.clone();
    loop {
        let locked = xact::attempt(|| {
            if !document::lock_tables(&a) {
                Error::TablesBusy.raise();
            }
        });
        match locked {
            Ok(()) => {}
            Err(failure) if failure.sqlstate == "55P03" => {
                notice(
                    "another transaction holds a lock on a table of the document: what is left waits for the next refresh",
                );
                return None;
            }
            Err(failure) => failure.raise(),
        }
        let now = attachment::required();
        check_owner(current_user(), now.profile);
        if now.is_same(&a) {
            return Some(now);
        }
        a = now;
    }
}

/// One batch. The caller commits after it.
pub fn step(a: &Rc<Attached>, phase: Phase, position: Option<Uuid>, batch: i32) -> Step1 {
    let at = |phase, position, stored| Step1 {
        phase,
        position,
        stored,
        held_up: false,
    };
    let held_up = Step1 {
        held_up: true,
        ..at(Phase::Done, None, 0)
    };
    match phase {
        Phase::Epochs => match epochs(a, batch) {
            Drained::Some(stored) => at(Phase::Epochs, None, stored),
            Drained::Nothing => at(Phase::Keys, None, 0),
            Drained::HeldUp => held_up,
        },
        Phase::Keys => match ready(a).map(|a| keys(&a, position, batch)) {
            None => held_up,
            Some((Some(last), stored)) => at(Phase::Keys, Some(last), stored),
            Some((None, stored)) => at(Phase::Fill, None, stored),
        },
        Phase::Fill | Phase::Done => match ready(a).map(|a| fill(&a, position, batch)) {
            None => held_up,
            Some((Some(last), stored)) => at(Phase::Fill, Some(last), stored),
            Some((None, stored)) => at(Phase::Done, None, stored),
        },
    }
}

/// What one step did about the pending epochs.
enum Drained {
    /// Something; it stored so many documents.
    Some(u64),
    /// There is nothing to be done now.
    Nothing,
    /// Another transaction holds a lock that computing needs.
    HeldUp,
}

/// When this run of the server began. A crash of one backend makes the postmaster start over with
/// fresh shared memory but its own start time; the checkpointer is started anew then too.
const RUN: &str = "(SELECT GREATEST(pg_postmaster_start_time(), max(s.backend_start)) \
     FROM pg_stat_get_activity(NULL) AS s WHERE s.backend_type = 'checkpointer')";

/// One pending epoch on its way: assigned, holders noted, passes, gone.
struct Drain {
    epoch: i64,
    /// None until noted under this run of the server.
    holders: Option<Vec<String>>,
    /// A complete pass has been made; readers know up to which xmin.
    complete: bool,
    running: bool,
    /// The noted holders were gone when the running pass began.
    last: bool,
    position: Option<Uuid>,
}

/// One step of draining the pending epochs.
fn epochs(a: &Rc<Attached>, batch: i32) -> Drained {
    match ddl::look_again(a) {
        ddl::Look::Nothing => {}
        ddl::Look::Done => return Drained::Some(0),
        ddl::Look::Busy => return Drained::HeldUp,
    }
    note_appliers(a);
    if assign() {
        return Drained::Some(0);
    }
    if session::assigned() {
        // Not committed yet: nobody else can have seen it.
        return Drained::Nothing;
    }
    for d in drains() {
        check_interrupts();
        if d.holders.is_none() {
            note_holders(a, d.epoch);
            return Drained::Some(0);
        }
        if d.running {
            return match ready(a) {
                Some(a) => Drained::Some(pass(&a, &d, batch)),
                None => Drained::HeldUp,
            };
        }
        let gone = !pending::any_alive(d.holders.as_deref().unwrap_or_default());
        if !d.complete || gone {
            begin_pass(d.epoch, gone);
            return Drained::Some(0);
        }
    }
    Drained::Nothing
}

/// Where a table may no longer be a target of logical replication: notes what its apply may have under
/// way, at first sight.
fn note_appliers(a: &Attached) {
    let waiting = {
        let _us = as_ourselves();
        spi::one(
            "SELECT FROM profile_cache.pending_epoch AS p WHERE p.apply AND p.epoch IS NULL LIMIT 1",
            At::New,
            &[],
            |_| (),
        )
    };
    if waiting.is_none() {
        return;
    }
    let holders = pending::appliers(&a.used());
    let _us = as_ourselves();
    spi::run(
        &format!(
            "INSERT INTO profile_cache.absent (pending, holders, server_start) \
             SELECT p.id, $1, {RUN} FROM profile_cache.pending_epoch AS p WHERE p.apply AND p.epoch IS NULL \
             ON CONFLICT (pending) DO UPDATE SET holders = excluded.holders, server_start = excluded.server_start \
             WHERE absent.server_start <> excluded.server_start"
        ),
        &[Arg::texts(&holders)],
    );
}

/// A pending epoch `p` that may get its number now. A transaction is seen to have committed before it has told
/// others what it invalidates, and gives up its own lock after that: only then can nobody compute by what was
/// before it in a snapshot that shows the number.
const ASSIGNABLE: &str = "p.epoch IS NULL AND p.about IS NULL \
   AND (NOT p.redefined OR NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.locktype = 'transactionid' \
    AND l.transactionid = p.xmin AND l.mode = 'ExclusiveLock')) \
   AND (NOT p.apply OR EXISTS (SELECT FROM profile_cache.absent AS b \
    WHERE b.pending = p.id AND NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.virtualtransaction = ANY (b.holders))))";

/// Gives every pending epoch without a number the next one: at least one more than the current, and
/// the clock's, so that nobody who writes our columns while triggers are off can foretell it. Committed by the caller before anything
/// else is done about it. Returns whether there were any.
fn assign() -> bool {
    let _us = as_ourselves();
    // Not those that are pending in this very transaction's future: only rows this snapshot sees.
    let waiting = spi::one(
        &format!("SELECT FROM profile_cache.pending_epoch AS p WHERE {ASSIGNABLE} LIMIT 1"),
        At::New,
        &[],
        |_| (),
    );
    if waiting.is_none() {
        return false;
    }
    session::assign();
    // One statement, one snapshot: what it numbers is what it has looked at, and a definition that it
    // does not see yet stays without a number.
    let numbered = format!(
        "WITH waiting AS MATERIALIZED (SELECT p.id, p.redefined FROM profile_cache.pending_epoch AS p WHERE {ASSIGNABLE}), \
          next AS (INSERT INTO profile_cache.epoch AS e (current, trusted_from) \
            SELECT n.epoch, n.epoch FROM (SELECT (EXTRACT(epoch FROM clock_timestamp()) * 1000000)::bigint) AS n(epoch) \
            ON CONFLICT (singleton) DO UPDATE SET current = GREATEST(e.current + 1, excluded.current), \
             trusted_from = CASE WHEN (SELECT bool_or(w.redefined) FROM waiting AS w) \
              THEN GREATEST(e.current + 1, excluded.current) ELSE e.trusted_from END RETURNING e.current) \
         UPDATE profile_cache.pending_epoch AS p SET epoch = next.current FROM next WHERE p.id = ANY (ARRAY(SELECT w.id FROM waiting AS w)) \
         RETURNING p.redefined"
    );
    let redefined = spi::all(&numbered, At::New, &[], |r| r.bool(1) != Some(false));
    if redefined.contains(&true)
        && let Some((home, _)) = home()
    {
        catalog::invalidate(home);
    }
    true
}

/// The pending epochs with a number, oldest first; those that a restored dump brought without their
/// progress get theirs.
fn drains() -> Vec<Drain> {
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.drain (epoch) SELECT DISTINCT p.epoch FROM profile_cache.pending_epoch AS p \
         WHERE p.epoch IS NOT NULL \
          AND NOT EXISTS (SELECT FROM profile_cache.drain AS d WHERE d.epoch = p.epoch)",
        &[],
    );
    spi::all(
        &format!(
            "SELECT d.epoch, CASE WHEN d.server_start = {RUN} THEN d.holders END, \
              d.passed_to IS NOT NULL, d.running, d.last, d.position FROM profile_cache.drain AS d ORDER BY 1"
        ),
        At::New,
        &[],
        |r| Drain {
            epoch: r.int8(1).unwrap_or(0),
            holders: r.texts(2),
            complete: r.bool(3) == Some(true),
            running: r.bool(4) == Some(true),
            last: r.bool(5) == Some(true),
            position: r.uuid(6),
        },
    )
}

/// Notes who may have looked at the current epoch before the assignment was committed. Under a new
/// run of the server only prepared transactions are left of those noted before: note again, and do
/// not call a pass that was under way the last one.
fn note_holders(a: &Attached, epoch: i64) {
    let holders = pending::holders(a.profile);
    let _us = as_ourselves();
    spi::run(
        &format!(
            "UPDATE profile_cache.drain SET holders = $2, server_start = {RUN}, last = false \
             WHERE epoch = $1"
        ),
        &[Arg::int8(Some(epoch)), Arg::texts(&holders)],
    );
}

/// A pass begins: from the first key, remembering this snapshot's xmin.
fn begin_pass(epoch: i64, last: bool) {
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.drain SET running = true, last = $2, position = NULL, \
         began_at = pg_snapshot_xmin(pg_current_snapshot()) WHERE epoch = $1",
        &[Arg::int8(Some(epoch)), Arg::bool(last)],
    );
}

/// One batch of a pass: the epoch's dependents with an older stamp. What others hold locked becomes
/// pending keys. At the end of the last pass the epoch goes; at the end of another its xmin is set.
fn pass(a: &Attached, d: &Drain, batch: i32) -> u64 {
    let (condition, links) = concerned(a, d.epoch);
    let mut args = vec![
        Arg::uuid(d.position.as_ref()),
        Arg::int8(Some(i64::from(batch))),
        Arg::int8(Some(d.epoch)),
    ];
    args.extend(links.iter().map(|v| Arg::texts(v)));
    let keys = read_keys(a, spi::by_long_arrays(&a.sql.older(&condition)), &args);
    let stored = by_key(a, &keys, true);
    let _us = as_ourselves();
    let epoch = Arg::int8(Some(d.epoch));
    match keys.last() {
        Some(last) if keys.len() == batch as usize => spi::run(
            "UPDATE profile_cache.drain SET position = $2 WHERE epoch = $1",
            &[epoch, Arg::uuid(Some(last))],
        ),
        _ if d.last => {
            spi::run(
                "DELETE FROM profile_cache.pending_epoch WHERE epoch = $1",
                &[Arg::int8(Some(d.epoch))],
            );
            spi::run("DELETE FROM profile_cache.drain WHERE epoch = $1", &[epoch])
        }
        _ => spi::run(
            "UPDATE profile_cache.drain SET running = false, position = NULL, passed_to = began_at \
             WHERE epoch = $1",
            &[epoch],
        ),
    };
    stored
}

/// The condition on a profile p that one of the epoch's changes concerns it, its parameters numbered
/// from 4, and their values. A change whose table or column is no longer used concerns everyone.
fn concerned(a: &Attached, epoch: i64) -> (String, Vec<Vec<String>>) {
    let rows = {
        let _us = as_ourselves();
        spi::all(
            "SELECT p.link_schema::text, p.link_table::text, p.link_columns::text[], p.link_values \
             FROM profile_cache.pending_epoch AS p WHERE p.epoch = $1",
            At::New,
            &[Arg::int8(Some(epoch))],
            |r| (r.text(1), r.text(2), r.texts(3), r.texts(4)),
        )
    };
    let mut by_link: std::collections::BTreeMap<(usize, usize), Vec<Vec<String>>> =
        Default::default();
    for row in rows {
        let (Some(schema), Some(table), Some(columns), Some(values)) = row else {
            return ("true".into(), vec![]);
        };
        let mut known = false;
        for (t, used) in a.definition.tables.iter().enumerate() {
            if used.schema != schema || used.name != table {
                continue;
            }
            for (l, link) in used.links.iter().enumerate() {
                // A constant's link writes no such row.
                if !link.route.is_empty() && link.column_names() == columns {
                    let rows = values.chunks(columns.len().max(1)).map(<[String]>::to_vec);
                    by_link.entry((t, l)).or_default().extend(rows);
                    known = true;
                }
            }
        }
        if !known {
            return ("true".into(), vec![]);
        }
    }
    let (mut conditions, mut args) = (vec![], vec![]);
    for ((t, l), values) in by_link {
        let link = &a.definition.tables[t].links[l];
        conditions.push(a.sql.dependents(link, 4 + args.len()));
        args.extend(by_column(link.columns.len(), &values));
    }
    (conditions.join(" OR "), args)
}

/// The keys that a query of the profile table returns, read as the tables' owner.
fn read_keys<'a>(a: &Attached, sql: impl Into<spi::Statement<'a>>, args: &[Arg]) -> Vec<Uuid> {
    let _owner = as_owner(a.owner);
    spi::all(sql, At::New, args, |r| r.uuid(1))
        .into_iter()
        .flatten()
        .collect()
}

/// Locks, computes and writes profiles by their keys; with `leftovers`, names what is locked by
/// others as pending.
fn by_key(a: &Attached, keys: &[Uuid], leftovers: bool) -> u64 {
    let values: Vec<Vec<Value>> = keys.iter().map(|k| vec![Value::uuid(k)]).collect();
    let (naming, step) = (a.key_naming(), &a.key_naming().step);
    let locked = document::lock(a, step, &values, None);
    if leftovers {
        let missing = document::not_locked(a, step, &values, &locked);
        pending::leftovers(naming, missing.into_iter(), "locked during a pass");
    }
    let outcome = document::prepare(a, &locked).write(a);
    if leftovers {
        let texts = outcome
            .unwritten
            .iter()
            .map(|key| vec![Value::uuid(key).to_text()]);
        pending::leftovers(naming, texts, "its row could not be written");
    }
    outcome.stored
}

/// One pending key as listed.
struct Key {
    id: Uuid,
    columns: Vec<String>,
    values: Vec<String>,
}

/// One batch of pending keys, in the order of their ids; the last id where more may follow.
fn keys(a: &Attached, after: Option<Uuid>, batch: i32) -> (Option<Uuid>, u64) {
    let listed = {
        let _us = as_ourselves();
        if after.is_none() {
            spi::run(
                "DELETE FROM profile_cache.absent AS b WHERE NOT EXISTS \
                 (SELECT FROM profile_cache.pending_key AS p WHERE p.id = b.pending) AND NOT EXISTS \
                 (SELECT FROM profile_cache.pending_epoch AS e WHERE e.id = b.pending AND e.epoch IS NULL)",
                &[],
            );
            // One of each is enough: whoever sees the others go sees it, committed before. But it waits
            // for the holders of now: those that were noted for it may have been gone when the others came.
            session::forget_keys();
            spi::run(
                "WITH twice AS MATERIALIZED (SELECT r.id, r.n FROM (SELECT q.id, row_number() OVER \
                   (PARTITION BY q.key_columns, q.key_values ORDER BY q.id) AS n, count(*) OVER \
                   (PARTITION BY q.key_columns, q.key_values) AS of FROM profile_cache.pending_key AS q) AS r WHERE r.of > 1), \
                  anew AS (DELETE FROM profile_cache.absent AS b WHERE b.pending = ANY (ARRAY(SELECT t.id FROM twice AS t))) \
                 DELETE FROM profile_cache.pending_key AS p WHERE p.id = ANY (ARRAY(SELECT t.id FROM twice AS t WHERE t.n > 1))",
                &[],
            );
        }
        spi::all(
            "SELECT p.id, p.key_columns::text[], p.key_values FROM profile_cache.pending_key AS p \
             WHERE ($1 IS NULL OR p.id > $1) ORDER BY p.id LIMIT $2",
            At::New,
            &[Arg::uuid(after.as_ref()), Arg::int8(Some(i64::from(batch)))],
            |r| {
                Some(Key {
                    id: r.uuid(1)?,
                    columns: r.texts(2)?,
                    values: r.texts(3)?,
                })
            },
        )
    };
    let listed: Vec<Key> = listed.into_iter().flatten().collect();
    let mut stored = 0;
    for Naming { step, types, .. } in &a.naming {
        let columns = step.column_names();
        let mine: Vec<&Key> = listed.iter().filter(|k| k.columns == columns).collect();
        if !mine.is_empty() {
            stored += keys_of(a, step, types, &mine);
        }
    }
    let strangers: Vec<Uuid> = listed
        .iter()
        .filter(|k| !a.naming.iter().any(|n| n.step.column_names() == k.columns))
        .map(|k| k.id)
        .collect();
    if !strangers.is_empty() {
        // Nothing refers to that column any more, so nobody can be found by it.
        pending::everything("a pending key of a column that is no longer used");
        delete(&strangers);
    }
    let more = listed.len() == batch as usize;
    (listed.last().map(|k| k.id).filter(|_| more), stored)
}

/// Pending keys of the same columns: those whose row could be locked, computed and written go; those that
/// no row has go once nobody is left who could bring it.
fn keys_of(a: &Attached, step: &Step, types: &[String], keys: &[&Key]) -> u64 {
    let ids: Vec<Uuid> = keys.iter().map(|k| k.id).collect();
    let values: Vec<Vec<Value>> = {
        let _owner = as_owner(a.owner);
        let sql = format!("SELECT k.* FROM {} AS k", value_rows(types, 1));
        spi::all(&sql, At::New, &texts_of(types, keys), |r| {
            let values = (1..).map(|i| r.value(i)).take(types.len());
            values.collect::<Option<Vec<Value>>>()
        })
    }
    .into_iter()
    .flatten()
    .collect();
    let locked = document::lock(a, step, &values, None);
    let outcome = document::prepare(a, &locked).write(a);
    let found: Vec<Vec<Value>> = locked
        .iter()
        .filter(|l| l.key.is_none_or(|key| !outcome.unwritten.contains(&key)))
        .filter_map(|l| l.found_by.clone())
        .collect();
    let done = matching(a, step, types, keys, &ids, &found);
    delete(&done);
    let left: Vec<&Key> = keys
        .iter()
        .copied()
        .filter(|k| !done.contains(&k.id))
        .collect();
    if !left.is_empty() {
        absent(a, step, types, &left);
    }
    outcome.stored
}

/// The keys' values, an array of texts for each column.
fn texts_of(types: &[String], keys: &[&Key]) -> Vec<Arg> {
    let values: Vec<Vec<String>> = keys.iter().map(|k| k.values.clone()).collect();
    let columns = by_column(types.len(), &values);
    columns.iter().map(|texts| Arg::texts(texts)).collect()
}

/// Rows of the ids in $1 and the values from $2 on.
fn numbered(types: &[String]) -> String {
    let rows = value_rows(types, 2);
    format!(
        "{} AS k(id, {})",
        rows.replacen("ROWS FROM (", "ROWS FROM (pg_catalog.unnest($1), ", 1),
        value_columns(types.len())
    )
}

/// The ids whose values equal one of `found`, by the foreign key's own equality.
fn matching(
    a: &Attached,
    step: &Step,
    types: &[String],
    keys: &[&Key],
    ids: &[Uuid],
    found: &[Vec<Value>],
) -> Vec<Uuid> {
    if found.is_empty() {
        return vec![];
    }
    let n = types.len();
    let mut args = vec![Arg::uuids(ids)];
    args.extend(texts_of(types, keys));
    args.extend(document::arrays_of(step, found));
    read_keys(
        a,
        &format!(
            "SELECT k.id FROM {} WHERE EXISTS (SELECT FROM {} AS f({}) WHERE {})",
            numbered(types),
            array_rows(n, 2 + n),
            value_columns(n),
            step.equal("f", "k"),
        ),
        &args,
    )
}

/// Pending keys that no visible row has: noted with the present lock holders at first sight, dropped
/// when those are gone and a later snapshot still shows no row.
fn absent(a: &Attached, step: &Step, types: &[String], keys: &[&Key]) {
    let ids: Vec<Uuid> = keys.iter().map(|k| k.id).collect();
    let no_row = || {
        let mut args = vec![Arg::uuids(&ids)];
        args.extend(texts_of(types, keys));
        read_keys(
            a,
            &format!(
                "SELECT k.id FROM {} WHERE NOT EXISTS (SELECT FROM {} AS p WHERE {})",
                numbered(types),
                a.profile_name,
                step.equals("p", "k"),
            ),
            &args,
        )
    };
    let gone = no_row();
    if gone.is_empty() {
        return;
    }
    let holders = pending::holders(a.profile);
    {
        let _us = as_ourselves();
        spi::run(
            &format!(
                "INSERT INTO profile_cache.absent (pending, holders, server_start) \
                 SELECT i, $2, {RUN} FROM unnest($1) AS i \
                 ON CONFLICT (pending) DO UPDATE SET holders = excluded.holders, server_start = excluded.server_start \
                 WHERE absent.server_start <> excluded.server_start"
            ),
            &[Arg::uuids(&gone), Arg::texts(&holders)],
        );
    }
    let waited = {
        let _us = as_ourselves();
        spi::all(
            "SELECT b.pending FROM profile_cache.absent AS b WHERE b.pending = ANY ($1) AND NOT EXISTS \
             (SELECT FROM pg_locks AS l WHERE l.virtualtransaction = ANY (b.holders))",
            At::New,
            &[Arg::uuids(&gone)],
            |r| r.uuid(1),
        )
    };
    // A later snapshot than the one in which the holders were found gone.
    let still: std::collections::HashSet<Uuid> = no_row().into_iter().collect();
    let done: Vec<Uuid> = waited
        .into_iter()
        .flatten()
        .filter(|id| still.contains(id))
        .collect();
    delete(&done);
}

fn delete(ids: &[Uuid]) {
    if ids.is_empty() {
        return;
    }
    // One of them may be this very transaction's, which must be able to name it again.
    session::forget_keys();
    let _us = as_ourselves();
    spi::run(
        "DELETE FROM profile_cache.pending_key WHERE id = ANY ($1)",
        &[Arg::uuids(ids)],
    );
    spi::run(
        "DELETE FROM profile_cache.absent WHERE pending = ANY ($1)",
        &[Arg::uuids(ids)],
    );
}

/// One batch of documents that no reader trusts: missing, foreign, expired.
fn fill(a: &Attached, after: Option<Uuid>, batch: i32) -> (Option<Uuid>, u64) {
    // Without either, whatever is computed now would not be trusted.
    let Some((current, first)) = a.epochs.latest().zip(a.trusted_from) else {
        return (None, 0);
    };
    let keys = read_keys(
        a,
        &a.sql.untrusted(),
        &[
            Arg::uuid(after.as_ref()),
            Arg::int8(Some(i64::from(batch))),
            Arg::int8(Some(first)),
            Arg::int8(Some(current)),
        ],
    );
    let stored = by_key(a, &keys, false);
    let more = keys.len() == batch as usize;
    if !more {
        forget_mended(a);
    }
    (keys.last().copied().filter(|_| more), stored)
}

/// Failures of profiles that have a document again, or are gone, are no longer worth remembering.
fn forget_mended(a: &Attached) {
    let failed = pending::failures();
    if failed.is_empty() {
        return;
    }
    let (keys, times): (Vec<Uuid>, Vec<String>) = failed.into_iter().unzip();
    let args = [Arg::uuids(&keys), Arg::texts(&times)];
    let mended = read_keys(a, &a.sql.computed_since(), &args);
    pending::mended(&mended);
}

/// Whether another round of draining would find something to do.
pub fn more_to_drain() -> bool {
    let unassigned = {
        let _us = as_ourselves();
        spi::one(
            &format!("SELECT FROM profile_cache.pending_epoch AS p WHERE {ASSIGNABLE} LIMIT 1"),
            At::New,
            &[],
            |_| (),
        )
        .is_some()
    };
    if session::assigned() {
        return false;
    }
    unassigned
        || drains().iter().any(|d| {
            d.holders
                .as_ref()
                .is_none_or(|h| d.running || !d.complete || !pending::any_alive(h))
        })
}

/// Raises what would keep a refresh from running at all; about how many profiles there are.
pub fn begin(batch: Option<i32>) -> i64 {
    rights::check_extension_member();
    let a = attachment::required();
    check_owner(current_user(), a.profile);
    match batch {
        None => Error::NullArgument("batch_size").raise(),
        Some(n) if !(1..=100_000).contains(&n) => Error::BatchSize(n).raise(),
        Some(_) => {}
    }
    if !crate::pg::spi::may_commit() {
        Error::InTransaction.raise();
    }
    {
        // What is granted follows the extension's owner, of whose change no event tells.
        let _quiet = attachment::Attaching::begin();
        rights::set(Some(a.owner), Revoke::FormerOwners);
    }
    crate::report::estimated_rows(&a)
}
