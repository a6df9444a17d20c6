//! The launcher: gives the databases of the list their slots, and starts a worker where there is something to do.
//!
//! Invariant: it is connected to no database, so it is in nobody's way. A database that does not exist, does not allow
//! connections or has nothing to do takes none of the server's worker processes. What it does not manage now it tries again after
//! a pause that grows.
//!
//! Rules: B2, B6, B8.

use super::pause;
use crate::pg::bgworker::{self, Started, interrupts, is_terminated, until, wait};
use crate::pg::shared::{Board, SLOTS, Slot, board};
use crate::pg::{Oid, xact};
use crate::settings;
use crate::wakeup::{Doing, doing, names, set_doing};
use pgrx::pg_sys::Datum;
use std::sync::atomic::Ordering::SeqCst;

/// How long until a database is looked for again that does not exist, in microseconds. CREATE DATABASE says so itself.
const MISSING: i64 = 60_000_000;

#[pgrx::pg_guard]
extern "C-unwind" fn left(_code: i32, _arg: Datum) {
    if let Some(board) = board() {
        board.launcher.leave();
    }
}

/// All that it does.
pub fn launcher() {
    let Some(board) = board() else { return };
    if !board.launcher.enter() {
        return;
    }
    bgworker::at_exit(left, 0);
    bgworker::connect(None);
    bgworker::set(&[(c"search_path", c"pg_catalog, pg_temp"), (c"lock_timeout", c"0")]);
    let mut started: [Option<Started>; SLOTS] = Default::default();
    let (mut look, mut missing, mut looked_at) = (true, false, 0);
    while !is_terminated() {
        for (slot, started) in board.slots.iter().zip(&mut started) {
            note_end(slot, started);
        }
        let now = xact::clock();
        look |= board.look.swap(false, SeqCst);
        look |= missing && looked_at + MISSING <= now;
        // What is to be connected to is asked first whether it is still there.
        if look || board.slots.iter().zip(&started).any(|(s, w)| w.is_none() && is_due(s, now)) {
            missing = !look_at_list(board, &started);
            (look, looked_at) = (false, now);
        }
        for (number, (slot, started)) in board.slots.iter().zip(&mut started).enumerate() {
            if started.is_none() && is_due(slot, xact::clock()) {
                *started = begin(slot, number);
            }
        }
        let ends =
            board.slots.iter().zip(&started).filter(|(_, w)| w.is_none()).map(|(s, _)| due_at(s));
        let again = if missing { looked_at + MISSING } else { i64::MAX };
        let next = ends.chain([again]).min().filter(|at| *at < i64::MAX);
        wait(next.map(until));
        look |= interrupts();
        look |= settings_changed();
    }
}

thread_local! {
    static LIST: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// Whether the list is another one than at the last question.
fn settings_changed() -> bool {
    let list = settings::databases();
    LIST.with_borrow_mut(|before| std::mem::replace(before, list.clone()) != list)
}

/// Takes note of the end of a worker. One that has not come as far as to say what it does has failed.
fn note_end(slot: &Slot, started: &mut Option<Started>) {
    if started.take_if(|worker| worker.has_ended()).is_some() && doing(slot) == Doing::Starting {
        set_doing(slot, Doing::Nothing);
        put_off(slot);
    }
}

/// After a pause that grows.
fn put_off(slot: &Slot) {
    let times = slot.failures.fetch_add(1, SeqCst);
    slot.not_before.store(xact::clock() + pause(1_000_000, times, 60_000_000), SeqCst);
}

/// When a worker is to be started, or `i64::MAX`.
fn due_at(slot: &Slot) -> i64 {
    if slot.database().is_none() || slot.worker.is_there() {
        return i64::MAX;
    }
    let wanted = slot.wanted.load(SeqCst) || slot.noted.load(SeqCst);
    let at = if wanted { 0 } else { slot.next_at.load(SeqCst) };
    at.max(slot.not_before.load(SeqCst)).max(slot.let_go_until.load(SeqCst))
}

fn is_due(slot: &Slot, now: i64) -> bool {
    due_at(slot) <= now
}

fn begin(slot: &Slot, number: usize) -> Option<Started> {
    let oid = slot.database()?;
    let was = doing(slot);
    set_doing(slot, Doing::Starting);
    let started = bgworker::start(number, &format!("profile_cache worker for database {oid}"));
    if started.is_none() {
        set_doing(slot, Doing::NoRoom);
        if was != Doing::NoRoom {
            slot.failures.store(0, SeqCst);
        }
        put_off(slot);
    }
    started
}

/// Gives each database of the list a slot, and takes it from the others. Whether all of the list are there.
fn look_at_list(board: &Board, started: &[Option<Started>; SLOTS]) -> bool {
    let list = settings::databases().unwrap_or_default();
    let list = names(&list);
    let there = bgworker::transaction(c"profile_cache: looks for databases", bgworker::databases);
    let there = there.unwrap_or_else(|failure| failure.raise());
    let number = |name: &String| there.iter().find(|(n, _)| n == name).map(|(_, oid)| *oid);
    let found: Vec<Option<Oid>> = list.iter().map(number).collect();
    for slot in &board.slots {
        if slot.database().is_some_and(|oid| !found.contains(&Some(oid))) {
            slot.free();
        }
    }
    let mut all = true;
    for oid in &found {
        let Some(oid) = oid else {
            all = false;
            continue;
        };
        if board.of(*oid).is_none() {
            let mut free = board.slots.iter().zip(started).filter(|(slot, worker)| {
                slot.database().is_none() && worker.is_none() && !slot.worker.is_there()
            });
            match free.next() {
                Some((slot, _)) => slot.give_to(*oid),
                None => all = false,
            }
        }
    }
    all
}
