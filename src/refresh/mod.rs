//! Draining what is pending and mending what has lost its document, one short transaction at a time.
//!
//! Invariant: all progress is in tables (`drain`, `absent`, `failure`, `last_refresh`, the documents themselves), so a
//! cancel, a crash or a timeout between two steps loses and repeats nothing. What a step costs follows what is
//! to be done, never the table's size. A step never waits for an idle transaction: what others hold locked is skipped,
//! and lock holders are noted and asked for again later. Steps exclude each other by a lock on `drain`, whole
//! refreshes by a session's lock.

use crate::attach::ddl;
use crate::attachment::{self, Attached, Naming};
use crate::blockers::{Mode, blockers};
use crate::definition::{Sql, Step, array_rows, by_column, value_columns, value_rows};
use crate::document::{self, Request};
use crate::error::{Error, check_interrupts, notice, warning};
use crate::pending;
use crate::pg::identity::{current_user, setting};
use crate::pg::spi::{self, Arg, At};
use crate::pg::tuple::Turn;
use crate::pg::value::{Uuid, Value};
use crate::pg::{catalog, xact};
use crate::rights::{self, Revoke, as_ourselves, as_owner, check_owner, home};
use crate::xact_state;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Whose turn it is: pending keys, pending epochs, documents that nothing pending speaks of. Each has one step, and
/// then comes the next, so that no stream of one kind keeps another waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Begin,
    Keys,
    Epochs,
    Stale,
    Done,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Begin => "begin",
            Phase::Keys => "keys",
            Phase::Epochs => "epochs",
            Phase::Stale => "stale",
            Phase::Done => "done",
        }
    }
    pub fn parse(name: &str) -> Phase {
        match name {
            "begin" => Phase::Begin,
            "epochs" => Phase::Epochs,
            "stale" => Phase::Stale,
            "done" => Phase::Done,
            _ => Phase::Keys,
        }
    }
}

/// What a refresh remembers between its transactions. Nothing is lost with it but time.
#[derive(Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Course {
    /// How many profiles the next step takes; 0: not measured yet.
    size: i32,
    /// A step has done something since the turn came round.
    worked: bool,
    /// Nothing has been done for a whole round: what is left of the pending keys is looked at once more.
    settling: bool,
    /// The last pending key of the sweep under way, and when that began, by the clock.
    key: Option<Uuid>,
    swept: i64,
    /// The pending epoch that had its turn last.
    epoch: i64,
    /// Pending epochs that this call has passed once more.
    again: Vec<i64>,
    /// When the last expired document that was looked at had expired, and whose it was.
    expired: Option<(i64, Uuid)>,
    /// No more of them are to be found, no failure is to be tried, no part of the table is to be looked through
    /// in this call.
    none_expired: bool,
    none_failed: bool,
    looked: bool,
    /// How long, in microseconds, this call has looked through the table.
    looking: i64,
}

/// How long the rows of a step may stay locked, in microseconds: a writer of theirs waits no longer.
const STEP: i64 = 100_000;
/// With how many profiles it begins.
const FIRST: i32 = 10;
/// Pending keys that could not be dealt with are looked at again after this time, in microseconds.
const PAUSE: i64 = 1_000_000;

impl Course {
    /// How many profiles the next step takes, of `most`.
    fn size(&self, most: i32) -> i32 {
        let first = if self.size == 0 { FIRST } else { self.size };
        first.clamp(1, most)
    }

    /// [`by_key`], measured.
    fn by_key(&mut self, a: &Attached, keys: &[Uuid]) -> u64 {
        self.measured(|stored| *stored, || by_key(a, keys))
    }

    /// Locks, computes and writes, and takes note of how long that took for so many as were stored.
    fn measured<R>(&mut self, stored: impl Fn(&R) -> u64, work: impl FnOnce() -> R) -> R {
        let began = xact::clock();
        let done = work();
        let number = stored(&done) as i64;
        self.size = next_size(number, xact::clock() - began).unwrap_or(self.size);
        done
    }
}

/// How many profiles take a step's time, where so many took `took` microseconds. A few say little of many: it
/// grows by steps, and shrinks at once.
fn next_size(number: i64, took: i64) -> Option<i32> {
    if number == 0 {
        return None;
    }
    let size = number.saturating_mul(STEP) / took.max(1);
    i32::try_from(size.clamp(1, number.saturating_mul(4))).ok()
}

/// What one step did.
#[derive(Default)]
pub struct Done {
    /// Documents stored as trusted.
    stored: u64,
    /// There was something to do, and it was done.
    worked: bool,
    /// Others hold a lock that computing needs: who.
    held_up: Option<Vec<String>>,
}

impl Done {
    fn stored(stored: u64) -> Done {
        Done { stored, worked: true, held_up: None }
    }
    fn held_up(by: Vec<String>) -> Done {
        Done { held_up: Some(by), ..Done::default() }
    }
}

/// Waits for another step to end. What is attached is looked at after that.
pub fn take_turn() {
    let _us = as_ourselves();
    spi::utility("LOCK TABLE profile_cache.drain IN SHARE UPDATE EXCLUSIVE MODE");
}

/// Takes the tables' locks that computing needs, before any row's: whoever waited for one of them with rows
/// locked would keep the app from these. For the profile table it waits, with nothing in hand; the others it
/// tries, all or none. What is attached then; or who is in the way.
fn ready(a: &Attached) -> Result<Rc<Attached>, Vec<String>> {
    let locked = xact::attempt(|| {
        if !document::lock_tables(a) {
            Error::TablesBusy(vec![]).raise();
        }
    });
    match locked {
        Ok(()) => {}
        Err(failure) if failure.sqlstate == "55P03" => {
            let wanted: Vec<_> = a.read.iter().map(|r| (*r, Mode::AccessShare)).collect();
            return Err(blockers(&wanted));
        }
        Err(failure) => failure.raise(),
    }
    // Whoever held one of them may have changed what is attached. What that reads beside is tried with the rows.
    let now = attachment::required();
    check_owner(current_user(), now.profile);
    Ok(now)
}

/// One step, of at most `most` profiles; the caller commits after it. Whose turn is next.
pub fn step(a: &Rc<Attached>, phase: Phase, course: &mut Course, most: i32) -> (Phase, u64) {
    // What DDL has left may be what is wrong.
    match ddl::look_again(a) {
        ddl::Look::Nothing => {}
        ddl::Look::Done => {
            course.worked = true;
            let begins = phase == Phase::Begin;
            return (if begins { Phase::Keys } else { phase }, 0);
        }
        ddl::Look::Busy => {
            let why = "DDL is under way that may concern the document";
            notice(&format!("{why}: what is left waits for the next refresh"));
            end(Some(why.into()));
            return (Phase::Done, 0);
        }
    }
    if let Some(distrust) = &a.distrust {
        let why = distrust.reason();
        warning(
            &format!("refresh does nothing while documents are read from the view: {why}"),
            &distrust.hint(),
        );
        end(Some(why));
        return (Phase::Done, 0);
    }
    let done = match phase {
        Phase::Begin => return (Phase::Keys, 0),
        Phase::Keys => keys(a, course, most),
        Phase::Epochs => epochs(a, course, most),
        Phase::Stale | Phase::Done => stale(a, course, most),
    };
    if let Some(by) = done.held_up {
        let why = "another transaction holds a lock on a table of the document";
        let why = [&[why.to_owned()], &by[..]].concat().join(": ");
        notice(&format!("{why}: what is left waits for the next refresh"));
        end(Some(why));
        return (Phase::Done, done.stored);
    }
    course.worked |= done.worked;
    let next = match phase {
        Phase::Keys => Phase::Epochs,
        Phase::Epochs => Phase::Stale,
        _ if std::mem::take(&mut course.worked) => {
            course.settling = false;
            Phase::Keys
        }
        // A sweep of the keys goes on to its end, which is no work in itself.
        _ if course.key.is_some() => Phase::Keys,
        // Once more, now that nothing else changes: the keys that had to wait.
        _ if !std::mem::replace(&mut course.settling, true) => Phase::Keys,
        _ => {
            forget_mended(a);
            end(None);
            Phase::Done
        }
    };
    (next, done.stored)
}

/// Writes down how a refresh ended, for `status`: what it left undone, or None.
fn end(outcome: Option<String>) {
    {
        let _us = as_ourselves();
        spi::run(
            "UPDATE profile_cache.last_refresh SET outcome = $1, \
              completed_at = CASE WHEN $1 IS NULL THEN clock_timestamp() ELSE completed_at END",
            &[Arg::optional_text(outcome.as_deref())],
        );
    }
    Turn::give_back();
}

/// When this run of the server began. A crash of one backend makes the postmaster start over with
/// fresh shared memory but its own start time; the checkpointer is started anew then too.
pub const RUN: &str = "(SELECT GREATEST(pg_postmaster_start_time(), max(s.backend_start)) \
     FROM pg_stat_get_activity(NULL) AS s WHERE s.backend_type = 'checkpointer')";

/// One pending epoch on its way: assigned, holders noted, passes, gone.
struct Drain {
    epoch: i64,
    /// None until noted under this run of the server.
    holders: Option<Vec<String>>,
    /// A complete pass has been made; readers know up to which xmin.
    complete: bool,
    running: bool,
    /// How many of the noted holders were there when the last pass began, where that is known.
    alive: Option<i64>,
    position: Option<Uuid>,
    /// Which pass it is.
    pass: Option<Uuid>,
    /// It names no values: it concerns every profile.
    everyone: bool,
}

/// One step of draining the pending epochs, which take turns too: an edit need not wait until a pass over the
/// whole table has come to its end.
fn epochs(a: &Rc<Attached>, course: &mut Course, most: i32) -> Done {
    note_appliers(a);
    if assign() {
        return Done::stored(0);
    }
    if xact_state::assigned() {
        // Not committed yet: nobody else can have seen it.
        return Done::default();
    }
    let mut all = drains();
    let later = all.iter().take_while(|d| d.epoch <= course.epoch).count();
    all.rotate_left(later);
    for d in all {
        check_interrupts();
        course.epoch = d.epoch;
        if d.holders.is_none() {
            note_holders(a, d.epoch);
            return Done::stored(0);
        }
        if d.running {
            return match ready(a) {
                Ok(a) => Done::stored(pass(&a, &d, course, most)),
                Err(by) => Done::held_up(by),
            };
        }
        let alive = pending::alive(d.holders.as_deref().unwrap_or_default());
        if !d.complete || alive == 0 {
            begin_pass(d.epoch, alive);
            return Done::stored(0);
        }
        // Row versions that have come since the last pass are read live for this epoch. Another pass ends
        // that, for those of the noted holders that are gone, and for those whom it does not concern.
        let fewer = d.alive.is_none_or(|before| alive < before);
        if (fewer || !d.everyone) && !course.again.contains(&d.epoch) {
            course.again.push(d.epoch);
            begin_pass(d.epoch, alive);
            return Done::stored(0);
        }
    }
    Done::default()
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

/// A pending epoch `p` that may get its number now. One that has redefined the document only when it is over: then can
/// nobody compute by what was before it in a snapshot that shows the number.
fn assignable() -> String {
    format!(
        "p.epoch IS NULL AND p.about IS NULL AND (NOT p.redefined OR {OVER}) \
         AND (NOT p.apply OR EXISTS (SELECT FROM profile_cache.absent AS b \
          WHERE b.pending = p.id AND NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.virtualtransaction = ANY (b.holders))))",
        OVER = pending::OVER
    )
}

/// Gives every pending epoch without a number the next one: at least one more than the current, and
/// the clock's, so that nobody who writes our columns while triggers are off can foretell it. Committed by the caller before anything
/// else is done about it. Returns whether there were any.
fn assign() -> bool {
    let _us = as_ourselves();
    let assignable = assignable();
    // Not those that are pending in this very transaction's future: only rows this snapshot sees.
    let waiting = spi::one(
        &format!("SELECT FROM profile_cache.pending_epoch AS p WHERE {assignable} LIMIT 1"),
        At::New,
        &[],
        |_| (),
    );
    if waiting.is_none() {
        return false;
    }
    xact_state::assign();
    // One statement, one snapshot: what it numbers is what it has looked at, and a definition that it
    // does not see yet stays without a number.
    let numbered = format!(
        "WITH waiting AS MATERIALIZED (SELECT p.id, p.redefined FROM profile_cache.pending_epoch AS p WHERE {assignable}), \
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
              d.passed_to IS NOT NULL, d.running, d.alive, d.position, d.pass, EXISTS (SELECT FROM profile_cache.pending_epoch AS p \
               WHERE p.epoch = d.epoch AND p.link_schema IS NULL) FROM profile_cache.drain AS d ORDER BY 1"
        ),
        At::New,
        &[],
        |r| Drain {
            epoch: r.int8(1).unwrap_or(0),
            holders: r.texts(2),
            complete: r.bool(3) == Some(true),
            running: r.bool(4) == Some(true),
            alive: r.int8(5),
            position: r.uuid(6),
            pass: r.uuid(7),
            everyone: r.bool(8) != Some(false),
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
            "UPDATE profile_cache.drain SET holders = $2, server_start = {RUN}, alive = NULL \
             WHERE epoch = $1"
        ),
        &[Arg::int8(Some(epoch)), Arg::texts(&holders)],
    );
}

/// A pass begins: from the first key, remembering this snapshot's xmin, and how many of the noted holders are there.
fn begin_pass(epoch: i64, alive: i64) {
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.drain SET running = true, alive = $2, position = NULL, \
         pass = gen_random_uuid(), began_at = pg_snapshot_xmin(pg_current_snapshot()) WHERE epoch = $1",
        &[Arg::int8(Some(epoch)), Arg::int8(Some(alive))],
    );
}

/// One step of a pass: the epoch's dependents with an older stamp, or none. What others hold locked becomes
/// pending keys. At the end of the last pass the epoch goes; at the end of another its xmin is set.
fn pass(a: &Attached, d: &Drain, course: &mut Course, most: i32) -> u64 {
    let size = course.size(most);
    let position = Arg::uuid(d.position.as_ref());
    let epoch = Arg::int8(Some(d.epoch));
    let (keys, next) = match concerned(a, d.epoch) {
        // So many of the table, whatever their stamps: where few are old, a step is no longer for that.
        None => {
            let current = Arg::int8(a.epochs.latest());
            let wide = size.max(LOOK);
            let limit = Arg::int8(Some(i64::from(wide)));
            let found = window(a, Sql::OLD, &[position, limit, epoch, current], wide);
            at_most(size, found)
        }
        Some((condition, links)) => {
            let list = || {
                let mut args = vec![position, Arg::int8(Some(LISTED as i64)), epoch];
                args.extend(links.iter().map(|v| Arg::texts(v)));
                read_keys(a, spi::planned_anew(&a.sql.older(&condition)), &args)
            };
            let (keys, more) = Listed::next(d.pass, d.position, size, list);
            let next = keys.last().copied().filter(|_| more);
            (keys, next)
        }
    };
    let stored = course.by_key(a, &keys);
    let _us = as_ourselves();
    let epoch = Arg::int8(Some(d.epoch));
    match next {
        Some(last) => spi::run(
            "UPDATE profile_cache.drain SET position = $2 WHERE epoch = $1",
            &[epoch, Arg::uuid(Some(&last))],
        ),
        None if d.alive == Some(0) => {
            spi::run(
                "DELETE FROM profile_cache.pending_epoch WHERE epoch = $1",
                &[Arg::int8(Some(d.epoch))],
            );
            spi::run("DELETE FROM profile_cache.drain WHERE epoch = $1", &[epoch]);
            pending::advance();
            0
        }
        None => spi::run(
            "UPDATE profile_cache.drain SET running = false, position = NULL, passed_to = began_at \
             WHERE epoch = $1",
            &[epoch],
        ),
    };
    stored
}

/// The dependents of a pending epoch, which are found all together: listed once for many steps. Whom the epoch concerns is
/// decided in the snapshot that lists them; that they are locked and computed later is as it is within one step.
struct Listed {
    /// Of which pass. Two of one epoch may begin with the same xmin.
    pass: Option<Uuid>,
    /// The last key that was taken, and those that follow.
    taken: Option<Uuid>,
    left: VecDeque<Uuid>,
    /// There may be more than are listed.
    more: bool,
}

/// How many keys are listed at once.
const LISTED: usize = 100_000;

thread_local! {
    static KEPT: RefCell<Option<Listed>> = const { RefCell::new(None) };
}

impl Listed {
    /// The next keys of a pass that stands at `position`, and whether more may follow. A step that was rolled back
    /// has not moved it: then they are listed anew.
    fn next(
        pass: Option<Uuid>,
        position: Option<Uuid>,
        size: i32,
        list: impl FnOnce() -> Vec<Uuid>,
    ) -> (Vec<Uuid>, bool) {
        let kept = KEPT.take().filter(|l| {
            pass.is_some()
                && l.pass == pass
                && l.taken == position
                && position.is_some()
                && !l.left.is_empty()
        });
        let mut listed = kept.unwrap_or_else(|| {
            let left = VecDeque::from(list());
            Listed { pass, taken: position, more: left.len() == LISTED, left }
        });
        let size = listed.left.len().min(size as usize);
        let keys: Vec<Uuid> = listed.left.drain(..size).collect();
        listed.taken = keys.last().copied();
        let more = !listed.left.is_empty() || listed.more;
        KEPT.set(Some(listed).filter(|l| !l.left.is_empty()));
        (keys, more)
    }
}

/// Looks at the next so many profiles, in the order of their keys: those for which `wanted` holds, and the last that was
/// looked at where more may follow.
fn window(a: &Attached, wanted: &str, args: &[Arg], size: i32) -> (Vec<Uuid>, Option<Uuid>) {
    let _owner = as_owner(a.owner);
    let rows = spi::all(spi::planned_anew(&a.sql.window(wanted)), At::New, args, |r| {
        Some((r.uuid(1)?, r.bool(2) == Some(true)))
    });
    let rows: Vec<(Uuid, bool)> = rows.into_iter().flatten().collect();
    let more = rows.len() == size as usize;
    let last = rows.last().map(|(key, _)| *key).filter(|_| more);
    let wanted = rows.into_iter().filter(|(_, wanted)| *wanted);
    (wanted.map(|(key, _)| key).collect(), last)
}

/// As many of a window's keys as a step takes, and where the next one goes on.
fn at_most(size: i32, (mut keys, next): (Vec<Uuid>, Option<Uuid>)) -> (Vec<Uuid>, Option<Uuid>) {
    if keys.len() <= size as usize {
        return (keys, next);
    }
    keys.truncate(size as usize);
    let last = keys.last().copied();
    (keys, last)
}

/// The condition on a profile p that one of the epoch's changes concerns it, its parameters numbered
/// from 4, and their values. None where one of them concerns everyone: it has no values, or those of a table or column
/// that is no longer used.
fn concerned(a: &Attached, epoch: i64) -> Option<(String, Vec<Vec<String>>)> {
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
            return None;
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
            return None;
        }
    }
    let (mut conditions, mut args) = (vec![], vec![]);
    for ((t, l), values) in by_link {
        let link = &a.definition.tables[t].links[l];
        conditions.push(a.sql.dependents(link, 4 + args.len()));
        args.extend(by_column(link.columns.len(), &values));
    }
    Some((conditions.join(" OR "), args))
}

/// The keys that a query of the profile table returns, read as the tables' owner.
fn read_keys<'a>(a: &Attached, sql: impl Into<spi::Statement<'a>>, args: &[Arg]) -> Vec<Uuid> {
    let _owner = as_owner(a.owner);
    spi::all(sql, At::New, args, |r| r.uuid(1)).into_iter().flatten().collect()
}

/// Locks, computes and writes profiles by their keys; what could not be stored becomes pending keys.
fn by_key(a: &Attached, keys: &[Uuid]) -> u64 {
    let values: Vec<Vec<Value>> = keys.iter().map(|k| vec![Value::uuid(k)]).collect();
    let (naming, step) = (a.key_naming(), &a.key_naming().step);
    let requests = [Request { step, values: &values, lookup: None }];
    let outcome = document::recompute(a, &requests);
    pending::leftovers(naming, outcome.unlocked(a, 0).into_iter(), "locked during a pass");
    for (reason, texts) in outcome.left() {
        pending::leftovers(naming, texts, reason);
    }
    outcome.stored
}

/// One pending key as listed.
struct Key {
    id: Uuid,
    columns: Vec<String>,
    values: Vec<String>,
}

/// One step of the pending keys, in the order of their ids. When all have had their turn, it begins again; those that must
/// wait (locked rows, rows yet to come) not at once.
fn keys(a: &Rc<Attached>, course: &mut Course, most: i32) -> Done {
    let begins = course.key.is_none();
    if begins && !course.settling && xact::clock() - course.swept < PAUSE {
        return Done::default();
    }
    if !any_key() {
        course.key = None;
        return Done::default();
    }
    let a = match ready(a) {
        Ok(a) => a,
        Err(by) => return Done::held_up(by),
    };
    if begins {
        course.swept = xact::clock();
        tidy_keys();
    }
    let size = course.size(most);
    let listed = {
        let _us = as_ourselves();
        spi::all(
            "SELECT p.id, p.key_columns::text[], p.key_values FROM profile_cache.pending_key AS p \
             WHERE ($1 IS NULL OR p.id > $1) ORDER BY p.id LIMIT $2",
            At::New,
            &[Arg::uuid(course.key.as_ref()), Arg::int8(Some(i64::from(size)))],
            |r| Some(Key { id: r.uuid(1)?, columns: r.texts(2)?, values: r.texts(3)? }),
        )
    };
    let listed: Vec<Key> = listed.into_iter().flatten().collect();
    let (mut stored, mut gone) = (0, 0);
    for Naming { step, types, .. } in &a.naming {
        let columns = step.column_names();
        let mine: Vec<&Key> = listed.iter().filter(|k| k.columns == columns).collect();
        if !mine.is_empty() {
            let (more, deleted) =
                course.measured(|(stored, _)| *stored, || keys_of(&a, step, types, &mine));
            stored += more;
            gone += deleted;
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
    let more = listed.len() == size as usize;
    course.key = listed.last().map(|k| k.id).filter(|_| more);
    Done { stored, worked: stored > 0 || gone > 0 || !strangers.is_empty(), held_up: None }
}

fn any_key() -> bool {
    let _us = as_ourselves();
    let sql = "SELECT FROM profile_cache.pending_key AS p LIMIT 1";
    spi::one(sql, At::New, &[], |_| ()).is_some()
}

/// Forgets what was noted for pending rows that are gone, and all but one of equal keys.
fn tidy_keys() {
    let _us = as_ourselves();
    spi::run(
        "DELETE FROM profile_cache.absent AS b WHERE NOT EXISTS \
         (SELECT FROM profile_cache.pending_key AS p WHERE p.id = b.pending) AND NOT EXISTS \
         (SELECT FROM profile_cache.pending_epoch AS e WHERE e.id = b.pending AND e.epoch IS NULL)",
        &[],
    );
    // One of each is enough: whoever sees the others go sees it, committed before. But it waits
    // for the holders of now: those that were noted for it may have been gone when the others came.
    xact_state::forget_keys();
    spi::run(
        "WITH twice AS MATERIALIZED (SELECT r.id, r.n FROM (SELECT q.id, row_number() OVER \
           (PARTITION BY q.key_columns, q.key_values ORDER BY q.id) AS n, count(*) OVER \
           (PARTITION BY q.key_columns, q.key_values) AS of FROM profile_cache.pending_key AS q) AS r WHERE r.of > 1), \
          anew AS (DELETE FROM profile_cache.absent AS b WHERE b.pending = ANY (ARRAY(SELECT t.id FROM twice AS t))) \
         DELETE FROM profile_cache.pending_key AS p WHERE p.id = ANY (ARRAY(SELECT t.id FROM twice AS t WHERE t.n > 1))",
        &[],
    );
}

/// Pending keys of the same columns: those whose row could be locked, computed and written go; those that
/// no row has go once nobody is left who could bring it.
/// Documents stored, keys gone.
fn keys_of(a: &Attached, step: &Step, types: &[String], keys: &[&Key]) -> (u64, usize) {
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
    let requests = [Request { step, values: &values, lookup: None }];
    let outcome = document::recompute(a, &requests);
    let found = outcome.done(0);
    let done = matching(a, step, types, keys, &ids, &found);
    delete(&done);
    let left: Vec<&Key> = keys.iter().copied().filter(|k| !done.contains(&k.id)).collect();
    let mut gone = done.len();
    if !left.is_empty() {
        gone += absent(a, step, types, &left);
    }
    (outcome.stored, gone)
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
/// when those are gone and a later snapshot still shows no row. How many were dropped.
fn absent(a: &Attached, step: &Step, types: &[String], keys: &[&Key]) -> usize {
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
        return 0;
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
    let done: Vec<Uuid> = waited.into_iter().flatten().filter(|id| still.contains(id)).collect();
    delete(&done);
    done.len()
}

fn delete(ids: &[Uuid]) {
    if ids.is_empty() {
        return;
    }
    // One of them may be this very transaction's, which must be able to name it again.
    xact_state::forget_keys();
    let _us = as_ourselves();
    spi::run("DELETE FROM profile_cache.pending_key WHERE id = ANY ($1)", &[Arg::uuids(ids)]);
    spi::run("DELETE FROM profile_cache.absent WHERE pending = ANY ($1)", &[Arg::uuids(ids)]);
}

/// One step of the documents that no reader trusts although nothing pending speaks of them: what has expired, what
/// could not be computed; and a look at a part of the table, for whatever else there may be.
fn stale(a: &Rc<Attached>, course: &mut Course, most: i32) -> Done {
    // Without either, whatever is computed now would not be trusted.
    let Some((current, first)) = a.epochs.latest().zip(a.trusted_from) else {
        return Done::default();
    };
    let a = match ready(a) {
        Ok(a) => a,
        Err(by) => return Done::held_up(by),
    };
    let size = course.size(most);
    if a.definition.expires && a.expiry_indexed && !course.none_expired {
        let found = expired(&a, course.expired, size);
        course.none_expired = found.len() < size as usize;
        if let Some(last) = found.last() {
            course.expired = Some(*last);
            let keys: Vec<Uuid> = found.iter().map(|(_, key)| *key).collect();
            return Done::stored(course.by_key(&a, &keys));
        }
    }
    if !course.none_failed {
        forget_mended(&a);
        let due = pending::failures_due(size);
        course.none_failed = due.len() < size as usize;
        if !due.is_empty() {
            let stored = course.by_key(&a, &due);
            pending::postpone(&due);
            return Done::stored(stored);
        }
    }
    // Where everyone is pending, a pass looks through the table.
    if course.looked || everyone_is_pending() {
        return Done::default();
    }
    let began = xact::clock();
    let done = look_through(&a, course, first, current, most);
    course.looking += xact::clock() - began;
    // Where nothing else finds what has expired, a longer look.
    let more = a.definition.expires && !a.expiry_indexed && course.looking < STEP / 2;
    course.looked |= !more;
    done
}

fn everyone_is_pending() -> bool {
    let _us = as_ourselves();
    let sql = "SELECT FROM profile_cache.pending_epoch AS p WHERE p.link_schema IS NULL LIMIT 1";
    spi::one(sql, At::New, &[], |_| ()).is_some()
}

/// The next documents that have expired, in that order, after the one given.
fn expired(a: &Attached, after: Option<(i64, Uuid)>, size: i32) -> Vec<(i64, Uuid)> {
    let (until, key) = after.unzip();
    let args = [Arg::timestamptz(until), Arg::uuid(key.as_ref()), Arg::int8(Some(i64::from(size)))];
    let _owner = as_owner(a.owner);
    let rows = spi::all(spi::planned_anew(&a.sql.expired()), At::New, &args, |r| {
        r.timestamptz(1).zip(r.uuid(2))
    });
    rows.into_iter().flatten().collect()
}

/// Looks through the next part of the profile table, in the order of keys, from where the last look ended.
fn look_through(a: &Attached, course: &mut Course, first: i64, current: i64, most: i32) -> Done {
    let position = {
        let _us = as_ourselves();
        let sql = "SELECT l.looked_to FROM profile_cache.last_refresh AS l";
        spi::one(sql, At::New, &[], |r| r.uuid(1)).flatten()
    };
    let size = most.min(LOOK);
    let args = [
        Arg::uuid(position.as_ref()),
        Arg::int8(Some(i64::from(size))),
        Arg::int8(Some(first)),
        Arg::int8(Some(current)),
    ];
    let (mut keys, next) = window(a, Sql::UNTRUSTED, &args, size);
    let failed: std::collections::HashSet<Uuid> =
        pending::failures().into_iter().map(|f| f.0).collect();
    keys.retain(|key| !failed.contains(key));
    // What it finds is computed as far as a step goes; the next look begins there.
    let (keys, next) = at_most(course.size(most), (keys, next));
    // At its end: once more from the beginning, if that was not where this call began.
    course.looked = next.is_none() && position.is_none();
    let stored = course.by_key(a, &keys);
    let _us = as_ourselves();
    spi::run("UPDATE profile_cache.last_refresh SET looked_to = $1", &[Arg::uuid(next.as_ref())]);
    Done { stored, worked: !keys.is_empty() || !course.looked, held_up: None }
}

/// How many profiles one look at the table takes.
const LOOK: i32 = 1000;

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

/// Raises what would keep a refresh from running at all; about how many profiles there are.
pub fn check(most: Option<i32>) -> i64 {
    rights::check_extension_member();
    let a = attachment::required();
    check_owner(current_user(), a.profile);
    match most {
        None => Error::NullArgument("batch_size").raise(),
        Some(n) if !(1..=100_000).contains(&n) => Error::BatchSize(n).raise(),
        Some(_) => {}
    }
    if !spi::may_commit() {
        Error::InTransaction.raise();
    }
    estimated_rows(&a)
}

/// Begins a refresh, if no other is under way: says who is at it, and what will cut this one short; mends what is lost.
pub fn begin(a: &Attached) -> bool {
    if !Turn::take() {
        notice(&format!("another refresh is under way: {}", who_has_the_turn()));
        return false;
    }
    {
        // What is granted follows the extension's owner, of whose change no event tells.
        let _quiet = attachment::Attaching::begin();
        rights::set(Some(a.owner), Revoke::FormerOwners);
    }
    let limit = setting(c"statement_timeout").filter(|limit| limit != "0");
    if let Some(limit) = limit {
        notice(&format!(
            "statement_timeout ends this refresh after {limit} ms: what is done by then stays done. SET statement_timeout = 0 lets it come to its end"
        ));
    }
    begun();
    if a.epochs.latest().is_none() {
        // Lost, with all that its number said of the stamps.
        pending::first_epoch();
        pending::redefined("the current epoch was lost");
    }
    true
}

/// Of a row `k` of `pg_locks`, that it is the turn of a refresh of this database.
pub const TURN: &str = "k.locktype = 'relation' AND k.relation = 'profile_cache.pending'::regclass AND k.granted \
   AND k.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) \
   AND k.mode = 'ShareUpdateExclusiveLock'";

/// Who is at it, for people.
fn who_has_the_turn() -> String {
    let _us = as_ourselves();
    spi::one(
        &format!(
            "SELECT format('pid %s, application %L, since %s', k.pid, s.application_name, s.query_start) \
             FROM pg_locks AS k LEFT JOIN pg_stat_get_activity(k.pid) AS s ON true WHERE {TURN} LIMIT 1"
        ),
        At::New,
        &[],
        |r| r.text(1),
    )
    .flatten()
    .unwrap_or_else(|| "it has just ended".into())
}

/// Writes down that a refresh has begun, and that so far it has not come to its end.
fn begun() {
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.last_refresh (began_at) VALUES (clock_timestamp()) \
         ON CONFLICT (singleton) DO UPDATE SET began_at = excluded.began_at, outcome = NULL",
        &[],
    );
}

/// About how many profiles there are, as the last VACUUM or ANALYZE counted them.
fn estimated_rows(a: &Attached) -> i64 {
    let _us = as_ourselves();
    spi::one(
        "SELECT GREATEST(0, c.reltuples)::int8 FROM pg_class AS c WHERE c.oid = $1",
        At::New,
        &[Arg::oid(a.profile)],
        |r| r.int8(1),
    )
    .flatten()
    .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_as_many_as_its_time_allows() {
        // 5,000 took a second: 500 take 100 ms.
        assert_eq!(next_size(5000, 1_000_000), Some(500));
        assert_eq!(next_size(1, 3_000_000), Some(1));
        assert_eq!(next_size(100, 1000), Some(400));
        assert_eq!(next_size(100, 0), Some(400));
        assert_eq!(next_size(0, 1000), None);
        let course = Course { size: 4000, ..Course::default() };
        assert_eq!(course.size(1000), 1000);
        assert_eq!(Course::default().size(5000), FIRST);
        assert_eq!(Course::default().size(1), 1);
    }

    #[test]
    fn a_course_is_read_back_and_nothing_else_is_believed() {
        let course = Course {
            key: Some([7; 16]),
            expired: Some((-5, [1; 16])),
            again: vec![1, 2],
            ..Course::default()
        };
        let text = serde_json::to_string(&course).unwrap_or_default();
        let back = serde_json::from_str::<Course>(&text).ok();
        assert_eq!(format!("{back:?}"), format!("{:?}", Some(course)));
        assert!(serde_json::from_str::<Course>("5").is_err());
    }
}
