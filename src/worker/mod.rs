//! The background worker of a database: refreshes it when something is pending, missed or has expired, and leaves when
//! nothing is.
//!
//! Invariant: all that it does to documents and pending rows it does by `refresh`, in transactions of its own, one a step, in
//! the guards that everybody's SQL of ours runs in. Between two of them it can be told to leave, and in one of them it can be
//! cancelled; either way nothing is lost, and what is left is written in its slot as wanted.
//!
//! Rules: B1, B2, B3, B5, B6, B7, B9, B10, B11.
#![doc = include_str!("README.md")]

mod launcher;

pub use launcher::launcher;

use crate::pg::bgworker::{self, is_terminated, until, wait};
use crate::pg::shared::{HELPERS, Noted, Process, SLOTS, Slot, board};
use crate::pg::value::Uuid;
use crate::pg::xact::{self, Failure};
use crate::refresh::{self, Course, Left, Missed, Phase};
use crate::settings;
use crate::stats;
use crate::wakeup::{Doing, doing, set_doing};
use pgrx::pg_sys::Datum;
use std::ffi::CStr;
use std::sync::atomic::Ordering::SeqCst;

/// What a role's or a database's own settings would do to it. All else that matters is pinned where SQL of ours runs.
const SETTINGS: [(&CStr, &CStr); 13] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"role", c"none"),
    // Its steps are short by themselves, and a wait of its own holds up nobody.
    (c"statement_timeout", c"0"),
    (c"lock_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"idle_session_timeout", c"0"),
    (c"transaction_timeout", c"0"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    // A crash loses documents together with what it says of them; and a synchronous standby that is gone would hold it up.
    (c"synchronous_commit", c"off"),
    (c"session_replication_role", c"origin"),
    // What the app's functions say to their callers is not for the server's log; nor is what refresh says to people.
    (c"log_min_messages", c"error"),
    (c"application_name", c"profile_cache worker"),
];

/// How many profiles a step takes at the most.
const MOST: i32 = 5000;
/// How long it stays when there is nothing to do, in microseconds.
const LINGER: i64 = 5_000_000;
/// How long until a database is looked at again where nothing is attached. Attaching wakes it.
const NOTHING_THERE: i64 = 600_000_000;
/// How long whoever waits for a lock of its is left alone with it.
const MAKE_WAY: i64 = 1_000_000;

/// How long until a helper that is not there is started again.
const AGAIN: i64 = 1_000_000;

/// Why it leaves.
enum Leave {
    /// It has been told to, or somebody else needs what it has; the work is not done.
    Told,
    NothingAttached,
    Failed(Failure),
}

/// How long until a next attempt: `first`, and twice as long after each of so many, up to `most`.
fn pause(first: i64, times: u32, most: i64) -> i64 {
    first.saturating_mul(1 << times.min(30)).min(most)
}

#[pgrx::pg_guard]
extern "C-unwind" fn left_slot(_code: i32, number: Datum) {
    if let Some(board) = board()
        && let Some(slot) = board.slots.get(number.value())
    {
        // However it has come to this: what it was at is not done.
        if doing(slot) == Doing::Refreshing {
            set_doing(slot, Doing::Nothing);
            slot.not_before.fetch_max(xact::clock() + MAKE_WAY, SeqCst);
            slot.wanted.store(true, SeqCst);
        }
        slot.worker.leave();
        board.launcher.wake();
    }
}

/// The number of a process that helps the worker of a slot: `nth` from 1 on.
fn helper_number(slot: usize, nth: usize) -> usize {
    slot + SLOTS * nth
}

/// All that the process of this number does, from beginning to end: a slot's worker, or one that helps it.
pub fn worker(number: usize) {
    stats::is_worker();
    if number >= SLOTS {
        return helper(number);
    }
    let Some(slot) = board().and_then(|board| board.slots.get(number)) else { return };
    let Some(database) = slot.database().filter(|_| slot.worker.enter()) else { return };
    bgworker::at_exit(left_slot, number);
    let mut worker = Worker::new(number, slot, database);
    if worker.is_to_leave() {
        return worker.leave(Leave::Told);
    }
    bgworker::connect(Some(database));
    bgworker::set(&SETTINGS);
    let why = loop {
        match worker.refresh() {
            Ok(left) => worker.expect(&left),
            Err(why) => break why,
        }
        match worker.linger() {
            Ok(true) => {}
            Ok(false) => return,
            Err(why) => break why,
        }
    };
    worker.leave(why);
}

#[pgrx::pg_guard]
extern "C-unwind" fn helper_left(_code: i32, number: Datum) {
    if let Some(process) = helper_of(number.value()) {
        process.leave();
    }
}

fn helper_of(number: usize) -> Option<&'static Process> {
    board()?.slots.get(number % SLOTS)?.helpers.get((number / SLOTS).checked_sub(1)?)
}

/// All that a helper does: a share of the refresh that is under way, for as long as there is any.
fn helper(number: usize) {
    let Some(slot) = board().and_then(|board| board.slots.get(number % SLOTS)) else { return };
    let Some(process) = helper_of(number) else { return };
    let Some(database) = slot.database().filter(|_| process.enter()) else { return };
    bgworker::at_exit(helper_left, number);
    let worker = Worker::new(number % SLOTS, slot, database);
    if worker.is_to_leave() {
        return;
    }
    bgworker::connect(Some(database));
    bgworker::set(&SETTINGS);
    if let Err(Leave::Failed(failure)) = worker.help() {
        // The worker meets the same error, or another one, and counts.
        let code = xact::sqlstate_number(&failure.sqlstate);
        if slot.sqlstate.swap(code, SeqCst) != code {
            failure.log("profile_cache worker");
        }
    }
}

struct Worker {
    number: usize,
    slot: &'static Slot,
    database: crate::pg::Oid,
    /// How many refreshes in a row have left something pending.
    waits: u32,
    /// Of what readers have missed; how often in a row nothing of that was to be stored, and until when that is not asked again.
    hot: Course,
    vain: u32,
    hot_after: i64,
    /// When each of its helpers was last started.
    helped_at: [i64; HELPERS],
}

impl Worker {
    fn new(number: usize, slot: &'static Slot, database: crate::pg::Oid) -> Worker {
        Worker {
            number,
            slot,
            database,
            waits: 0,
            hot: Course::default(),
            vain: 0,
            hot_after: 0,
            helped_at: [0; HELPERS],
        }
    }

    /// Has others come who share the work, as many as `profile_cache.refresh_workers` allows and the server has room for.
    fn call_helpers(&mut self) {
        let now = xact::clock();
        let helpers = self.slot.helpers.iter().zip(&mut self.helped_at).enumerate();
        for (i, (process, at)) in helpers.take(settings::refresh_workers() - 1) {
            if !process.is_there() && now - *at > AGAIN {
                *at = now;
                let name = format!("profile_cache helper {} for database {}", i + 1, self.database);
                // Where there is no room the worker does it alone.
                let _ = bgworker::start(helper_number(self.number, i + 1), &name);
            }
        }
    }

    /// A share of what is listed by the refresh under way, as long as there is any.
    fn help(&self) -> Result<(), Leave> {
        let (mut phase, mut course) = (Phase::Help, Course::default());
        while phase != Phase::Done {
            let step = || refresh::transaction(phase, &mut course, MOST).0;
            let began = xact::clock();
            phase = self.transaction(c"profile_cache: helps to refresh", step)?;
            let rest = share(xact::clock() - began, settings::fill_share());
            if course.is_filling() && rest > 0 {
                let end = xact::clock() + rest.min(2_000_000);
                while xact::clock() < end {
                    self.look_up()?;
                    wait(Some(until(end)));
                }
            }
        }
        Ok(())
    }

    /// Whether it has been told to leave: by SIGTERM, by a statement that wants the database for itself, or since the database
    /// is no longer in the list.
    fn is_to_leave(&self) -> bool {
        is_terminated()
            || !self.slot.is_of(self.database)
            || self.slot.let_go_until.load(SeqCst) > xact::clock()
    }

    /// Between two transactions: what the server wants, and whether to go on.
    fn look_up(&self) -> Result<(), Leave> {
        bgworker::interrupts();
        // After it: a SIGTERM that comes later cancels the transaction that follows.
        if self.is_to_leave() { Err(Leave::Told) } else { Ok(()) }
    }

    fn transaction<R>(&self, what: &CStr, work: impl FnOnce() -> R) -> Result<R, Leave> {
        self.look_up()?;
        bgworker::transaction(what, work).map_err(|failure| {
            if self.is_to_leave() { Leave::Told } else { Leave::Failed(failure) }
        })
    }

    /// One refresh, from beginning to end, and what it has left.
    fn refresh(&mut self) -> Result<Left, Leave> {
        set_doing(self.slot, Doing::Refreshing);
        // Before the first snapshot: what is committed after it sets them again.
        self.slot.wanted.store(false, SeqCst);
        self.slot.next_at.store(i64::MAX, SeqCst);
        if !self.transaction(c"profile_cache: looks for what is attached", refresh::is_attached)? {
            return Err(Leave::NothingAttached);
        }
        if self.slot.fresh.load(SeqCst) {
            let what = c"profile_cache: looks for settings";
            if self.transaction(what, refresh::computes_for_others)? {
                // What was told before the server's last end is told no more.
                self.slot.lost.fetch_add(1, SeqCst);
            }
            self.slot.fresh.store(false, SeqCst);
        }
        let began = xact::clock();
        let lost = self.slot.lost.load(SeqCst);
        let course = if lost > 0 { Course::through_all() } else { Course::default() };
        let (mut phase, mut course, mut owed) = (Phase::Begin, course, 0);
        while phase != Phase::Done {
            self.serve_missed()?;
            let step = || {
                if refresh::is_in_the_way() {
                    return None;
                }
                Some(refresh::transaction(phase, &mut course, MOST))
            };
            let step_began = xact::clock();
            let Some((next, _)) = self.transaction(c"profile_cache: refreshes", step)? else {
                self.slot.not_before.store(xact::clock() + MAKE_WAY, SeqCst);
                return Err(Leave::Told);
            };
            phase = next;
            if course.is_shared() {
                self.call_helpers();
            }
            if course.is_filling() {
                owed += share(xact::clock() - step_began, settings::fill_share());
                owed = self.nap(owed)?;
            }
        }
        self.slot.failures.store(0, SeqCst);
        if course.is_through() {
            self.slot.lost.fetch_sub(lost, SeqCst);
        }
        let left = self.transaction(c"profile_cache: looks for what is left", refresh::left)?;
        let undone = left.pending || self.slot.lost.load(SeqCst) > 0;
        self.waits = if undone { self.waits + 1 } else { 0 };
        if undone {
            // What is in the way may stay there for long.
            let took = xact::clock() - began;
            let most = (10 * took).clamp(10_000_000, 60_000_000);
            let at = xact::clock() + pause(100_000, self.waits - 1, most).max(took);
            self.slot.next_at.fetch_min(at, SeqCst);
        }
        set_doing(self.slot, if undone { Doing::HeldUp } else { Doing::Nothing });
        Ok(left)
    }

    /// Writes down when there will be something to do.
    fn expect(&self, left: &Left) {
        if let Some(at) = left.next_at {
            // What is due and was not done had to wait, too.
            let soonest = xact::clock() + pause(100_000, self.waits, 10_000_000);
            self.slot.next_at.fetch_min(at.max(soonest), SeqCst);
        }
    }

    /// Computes what readers have missed and writers have told, which comes first. Where that is again and again what cannot be
    /// stored, as of a profile that another transaction holds, it is asked after a pause that grows.
    fn serve_missed(&mut self) -> Result<(), Leave> {
        while self.slot.noted.load(SeqCst) && self.hot_after <= xact::clock() {
            // Nothing else speaks of what was told. Should the process end here, it is lost.
            self.slot.lost.fetch_add(1, SeqCst);
            let keys = self.slot.take_keys().into_iter();
            let keys: Vec<_> = keys.map(|(key, told)| (key.to_be_bytes(), told)).collect();
            let (mut rest, mut stored) = (&keys[..], 0);
            let served = self.serve(&mut rest, &mut stored);
            // What could not be looked at stays told.
            let back = |(key, told): &(Uuid, bool)| {
                !told || self.slot.note(u128::from_be_bytes(*key), true) != Noted::Lost
            };
            if rest.iter().all(back) {
                self.slot.lost.fetch_sub(1, SeqCst);
            }
            served?;
            self.vain = if stored > 0 { 0 } else { self.vain + 1 };
            let rest = if stored > 0 { 0 } else { pause(10_000, self.vain, 1_000_000) };
            self.hot_after = xact::clock() + rest;
        }
        Ok(())
    }

    /// The same of these keys: how many were stored, and the rest where nothing can be computed now.
    fn serve(&mut self, rest: &mut &[(Uuid, bool)], stored: &mut u64) -> Result<(), Leave> {
        while !rest.is_empty() {
            let mut hot = std::mem::take(&mut self.hot);
            let step = || refresh::missed(rest, &mut hot);
            let done = self.transaction(c"profile_cache: computes what was missed", step)?;
            self.hot = hot;
            let Some(Missed { done, stored: more, left }) = done else { break };
            *stored += more;
            *rest = rest.get(done.max(1)..).unwrap_or_default();
            if left {
                let soon = xact::clock() + pause(100_000, self.waits, 10_000_000);
                self.slot.next_at.fetch_min(soon, SeqCst);
            }
        }
        Ok(())
    }

    /// Waits until then, or until it is woken, or until what is missed can be computed.
    fn wait(&self, end: i64) {
        let noted = self.slot.noted.load(SeqCst);
        wait(Some(until(if noted { end.min(self.hot_after) } else { end })));
    }

    /// Leaves the app what it has not used of its time: naps so many microseconds. What has been made pending meanwhile does not
    /// wait for the nap's end: what it still owes then.
    fn nap(&mut self, owed: i64) -> Result<i64, Leave> {
        let end = xact::clock() + owed.min(2_000_000);
        while xact::clock() < end {
            self.look_up()?;
            self.serve_missed()?;
            if self.slot.wanted.load(SeqCst) {
                return Ok(end - xact::clock());
            }
            self.wait(end);
        }
        Ok(0)
    }

    /// Waits for something to do. False where nothing has come for a while.
    fn linger(&mut self) -> Result<bool, Leave> {
        let end = xact::clock() + LINGER;
        loop {
            self.look_up()?;
            self.serve_missed()?;
            let (now, next) = (xact::clock(), self.slot.next_at.load(SeqCst));
            if self.slot.wanted.load(SeqCst) || next <= now {
                return Ok(true);
            }
            if end <= now && !self.slot.noted.load(SeqCst) {
                return Ok(false);
            }
            self.wait(if now < end { end } else { self.hot_after }.min(next));
        }
    }

    /// Writes down why it leaves, for whoever is started next.
    fn leave(&self, why: Leave) {
        let (slot, now) = (self.slot, xact::clock());
        match why {
            Leave::Told => {
                set_doing(slot, Doing::Nothing);
                slot.wanted.store(true, SeqCst);
            }
            Leave::NothingAttached => self.nothing_attached(now),
            Leave::Failed(failure) => {
                // What it has failed for may be that there is nothing any more.
                let attached =
                    bgworker::transaction(c"profile_cache: looks again", refresh::is_attached);
                if matches!(attached, Ok(false)) {
                    return self.nothing_attached(now);
                }
                let times = slot.failures.fetch_add(1, SeqCst);
                let code = xact::sqlstate_number(&failure.sqlstate);
                if slot.sqlstate.swap(code, SeqCst) != code || times == 0 {
                    failure.log("profile_cache worker");
                }
                slot.not_before.store(now + pause(1_000_000, times, 60_000_000), SeqCst);
                slot.wanted.store(true, SeqCst);
                set_doing(slot, Doing::Failed);
            }
        }
    }

    fn nothing_attached(&self, now: i64) {
        set_doing(self.slot, Doing::NothingAttached);
        self.slot.failures.store(0, SeqCst);
        self.slot.next_at.fetch_min(now + NOTHING_THERE, SeqCst);
        self.slot.take_keys();
    }
}

/// How long to nap after a step of so many microseconds, so that this share of the time is used, in percent.
fn share(took: i64, percent: i64) -> i64 {
    took.saturating_mul(100 - percent) / percent.max(1)
}

#[cfg(test)]
mod tests {
    use super::{pause, share};

    #[test]
    fn a_pause_grows_up_to_its_most() {
        assert_eq!(pause(100, 0, 1000), 100);
        assert_eq!(pause(100, 3, 1000), 800);
        assert_eq!(pause(100, 4, 1000), 1000);
        assert_eq!(pause(100, u32::MAX, 1000), 1000);
    }

    #[test]
    fn a_share_of_the_time_is_used() {
        assert_eq!(share(100, 50), 100);
        assert_eq!(share(100, 100), 0);
        assert_eq!(share(100, 20), 400);
    }
}
