//! Draining what is pending and mending what has lost its document, one short transaction at a time. The room writes its
//! own progress; documents are written by `document`, pending rows by `pending`, failures by `failures`.
//!
//! Invariant: all progress is in tables (`epoch_progress`, `claim`, `unmatched_key`, `failure`, `last_refresh`, the documents themselves), so a
//! cancel, a crash or a timeout between two steps loses and repeats nothing. What a step costs follows what is
//! to be done, never the table's size. A step never waits for an idle transaction: what others hold locked is skipped,
//! and lock holders are noted and asked for again later. One session coordinates: its steps exclude others by a lock on
//! `epoch_progress`, its whole refresh by a session's lock. Any number of others help, and take what is listed in `claim`.
//!
//! Rules: E12, E13, E14, E18, E22.
#![doc = include_str!("README.md")]

mod batch;
mod beside;
mod claims;
mod course;
mod epochs;
mod holders;
mod keys;
mod stale;

pub use beside::{Left, Missed, computes_for_others, is_attached, is_in_the_way, left, missed};
pub use course::Course;
pub use holders::RUN;

use crate::attach::ddl;
use crate::attachment::{self, Attached};
use crate::blockers::{Mode, OF_TABLE_HERE, WHOSE, blockers};
use crate::document;
use crate::error::{Error, notice, warning};
use crate::pending;
use crate::pg::guard::{current_user, setting};
use crate::pg::locks::Turn;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::tuple;
use crate::pg::xact::{self, Failure};
use crate::rights::{self, as_ourselves, check_owner};
use crate::stats::{self, Counter};
use epochs::epochs;
use keys::keys;
use stale::{forget_mended, stale};
use std::rc::Rc;

/// Whose turn it is: pending keys, pending epochs, documents that nothing pending speaks of. Each has one step, and
/// then comes the next, so that no stream of one kind keeps another waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Begin,
    Keys,
    Epochs,
    Stale,
    /// Another session has the refresh's turn: takes a share of its passes.
    Help,
    Done,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Begin => "begin",
            Phase::Keys => "keys",
            Phase::Epochs => "epochs",
            Phase::Stale => "stale",
            Phase::Help => "help",
            Phase::Done => "done",
        }
    }
    pub fn parse(name: &str) -> Phase {
        match name {
            "begin" => Phase::Begin,
            "epochs" => Phase::Epochs,
            "stale" => Phase::Stale,
            "help" => Phase::Help,
            "done" => Phase::Done,
            _ => Phase::Keys,
        }
    }
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

/// All that one transaction of a refresh does; the caller commits after it. Whose turn is next, and how many documents
/// were stored. The course says where to go on.
pub fn transaction(phase: Phase, course: &mut Course, most: i32) -> (Phase, u64) {
    (course.filling, course.shared) = (false, false);
    if std::mem::take(&mut course.nap) {
        xact::sleep(NAP);
    }
    let a = attachment::managed(attachment::required);
    if phase == Phase::Help || phase == Phase::Begin && !begin(&a) {
        check_transaction(&a);
        return help(&a, course, most);
    }
    if phase == Phase::Begin {
        course.idle = 0;
    }
    take_turn();
    let a = attachment::managed(attachment::required);
    check_transaction(&a);
    step(&a, phase, course, most)
}

/// How often a step looks whether it can have the tables' locks.
const TRIES: usize = 20;
/// How long, in milliseconds, whoever has nothing to do waits before he looks again, with nothing in hand.
const NAP: i64 = 10;

fn check_transaction(a: &Attached) {
    if xact::has_one_snapshot() {
        Error::OneSnapshot.raise();
    }
    if tuple::has_checks_queued(a.profile) {
        Error::ChecksQueued(a.profile_name.clone()).raise();
    }
}

/// One step beside the refresh that is under way. It is taken over where it is no more and has left something undone.
fn help(a: &Rc<Attached>, course: &mut Course, most: i32) -> (Phase, u64) {
    let helped = match a.degraded {
        None if claims::there() => epochs::help(a, course, most),
        _ => None,
    };
    if let Some(stored) = helped {
        course.idle = 0;
        return (Phase::Help, stored);
    }
    let who = who_has_the_turn();
    if pending::unpassed() {
        // In the next transaction, which has no table's lock yet: to begin may take a moment.
        if who.is_none() {
            return (Phase::Begin, 0);
        }
        if course.look_on(xact::clock()) {
            return (Phase::Help, 0);
        }
    }
    if let Some(who) = who {
        notice(&format!("another refresh is under way: {who}"));
    }
    (Phase::Done, 0)
}

/// Waits for another step to end. What is attached is looked at after that.
fn take_turn() {
    let _us = as_ourselves();
    spi::utility("LOCK TABLE profile_cache.epoch_progress IN SHARE UPDATE EXCLUSIVE MODE");
}

/// Takes the tables' locks that computing needs, before any row's: whoever waited for one of them with rows
/// locked would keep the app from these; and a migration that holds one may want next what the turn is held by. So it tries
/// them, all or none, for a moment. What is attached then; or who is in the way.
fn ready(a: &Attached) -> Result<Rc<Attached>, Vec<String>> {
    let tried = || {
        xact::attempt(|| {
            if !document::lock_tables(a) {
                Error::TablesBusy(vec![]).raise();
            }
        })
    };
    let busy = |tried: &Result<(), Failure>| tried.as_ref().is_err_and(|f| f.sqlstate == "55P03");
    let mut locked = tried();
    for _ in 0..TRIES {
        if !busy(&locked) {
            break;
        }
        xact::sleep(NAP);
        locked = tried();
    }
    match locked {
        Ok(()) => {}
        Err(failure) if failure.sqlstate == "55P03" => {
            stats::count(Counter::LocksNotHad);
            let wanted: Vec<_> = a.read.iter().map(|r| (*r, Mode::AccessShare)).collect();
            return Err(blockers(&wanted));
        }
        Err(failure) => failure.raise(),
    }
    Ok(attached_now())
}

/// The same for who only helps: it waits for no table either. None where one of them is not to be had.
fn ready_at_once(a: &Attached) -> Option<Rc<Attached>> {
    document::try_locks(a).then(attached_now)
}

/// Whoever held one of the tables may have changed what is attached. What that reads beside is tried with the rows.
fn attached_now() -> Rc<Attached> {
    let now = attachment::required();
    check_owner(current_user(), now.profile);
    now
}

/// One step, of at most `most` profiles. Whose turn is next.
fn step(a: &Rc<Attached>, phase: Phase, course: &mut Course, most: i32) -> (Phase, u64) {
    // What DDL has left may be what is wrong.
    match ddl::look_again(a) {
        ddl::Looked::Nothing => {}
        ddl::Looked::Done => {
            course.worked = true;
            let begins = phase == Phase::Begin;
            return (if begins { Phase::Keys } else { phase }, 0);
        }
        ddl::Looked::Busy => {
            let why = "DDL is under way that may concern the document";
            notice(&format!("{why}: what is left waits for the next refresh"));
            end(Some(why.into()));
            return (Phase::Done, 0);
        }
    }
    if let Some(degraded) = &a.degraded {
        let why = degraded.reason();
        warning(
            &format!("refresh does nothing while documents are read from the view: {why}"),
            &degraded.hint(),
        );
        end(Some(why));
        return (Phase::Done, 0);
    }
    let done = match phase {
        Phase::Begin => return (Phase::Keys, 0),
        Phase::Keys => keys(a, course, most),
        Phase::Epochs => epochs(a, course, most),
        Phase::Stale | Phase::Help | Phase::Done => stale(a, course, most),
    };
    if let Some(by) = done.held_up {
        let why = "another transaction holds a lock on a table of the document";
        let why = [&[why.to_owned()], &by[..]].concat().join(": ");
        notice(&format!("{why}: what is left waits for the next refresh"));
        end(Some(why));
        return (Phase::Done, done.stored);
    }
    course.worked |= done.worked;
    if done.worked {
        course.idle = 0;
    }
    let next = match phase {
        Phase::Keys => Phase::Epochs,
        Phase::Epochs => Phase::Stale,
        _ if std::mem::take(&mut course.worked) => {
            course.settling = false;
            Phase::Keys
        }
        // A sweep of the keys goes on to its end, which is no work in itself.
        _ if course.key.is_some() => Phase::Keys,
        // Others have the rest of a pass in hand, and it is complete when they are done.
        _ if course.in_hand && course.look_on(xact::clock()) => Phase::Keys,
        // Once more, now that nothing else changes: the keys that had to wait.
        _ if !std::mem::replace(&mut course.settling, true) => Phase::Keys,
        _ => {
            forget_mended(a);
            let in_hand = "another session has the rest of it in hand";
            end(course.in_hand.then(|| in_hand.into()));
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

/// Raises what would keep a refresh from running at all; about how many profiles there are.
pub fn check(most: Option<i32>) -> i64 {
    let a = attachment::managed(attachment::required);
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

/// Begins a refresh, if no other is under way: says what will cut it short, and mends what is lost.
fn begin(a: &Attached) -> bool {
    if !Turn::take() {
        return false;
    }
    {
        // What is granted follows the extension's owner, of whose change no event tells.
        let _quiet = attachment::Attaching::begin();
        rights::keep(a.owner);
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

/// Of a row `l` of `pg_locks`, that it is the turn of a refresh of this database.
pub fn turn() -> String {
    format!(
        "{OF_TABLE_HERE} AND l.relation = 'profile_cache.pending'::regclass AND l.granted AND l.mode = 'ShareUpdateExclusiveLock'"
    )
}

/// Who is at it, for people; None where it has just ended.
fn who_has_the_turn() -> Option<String> {
    let _us = as_ourselves();
    spi::one(
        &format!(
            "SELECT format('pid %s, application %L, since %s', l.pid, s.application_name, s.query_start) \
             FROM pg_locks AS l {WHOSE} WHERE {} LIMIT 1",
            turn()
        ),
        Snapshot::New,
        &[],
        |r| r.text(1),
    )
    .flatten()
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

/// About how many profiles there are, as the last VACUUM or ANALYZE counted them. 0 where nobody can
/// tell.
fn estimated_rows(a: &Attached) -> i64 {
    let _us = as_ourselves();
    spi::one(
        "SELECT GREATEST(0, c.reltuples)::int8 FROM pg_class AS c WHERE c.oid = $1",
        Snapshot::New,
        &[Arg::oid(a.profile)],
        |r| r.int8(1),
    )
    .flatten()
    .unwrap_or(0)
}
