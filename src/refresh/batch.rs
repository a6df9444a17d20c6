//! The profiles of one step: found by their keys, locked, computed and written.
//!
//! Invariant: what of them could not be stored is left as pending keys, so no caller can lose one. How long it took
//! says how many the next step takes.
//!
//! Rules: E4.

use super::course::{Course, next_size};
use crate::attachment::Attached;
use crate::document::{self, Outcome, Request};
use crate::pending;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::{Uuid, Value};
use crate::pg::xact;
use crate::rights::as_owner;
use crate::settings;
use crate::stats;

impl Course {
    /// [`by_key`], measured.
    pub(super) fn by_key(&mut self, a: &Attached, keys: &[Uuid]) -> u64 {
        self.measured(|stored| *stored, || by_key(a, keys))
    }

    /// Locks, computes and writes, and takes note of how long that took for so many as were stored.
    pub(super) fn measured<R>(
        &mut self,
        stored: impl Fn(&R) -> u64,
        work: impl FnOnce() -> R,
    ) -> R {
        let began = xact::clock();
        let done = work();
        let number = stored(&done) as i64;
        self.size =
            next_size(number, xact::clock() - began, settings::batch()).unwrap_or(self.size);
        done
    }
}

/// Looks at the next so many profiles, in the order of their keys: those for which `wanted` holds, and the last that was
/// looked at where more may follow.
pub(super) fn window(
    a: &Attached,
    wanted: &str,
    args: &[Arg],
    size: i32,
) -> (Vec<Uuid>, Option<Uuid>) {
    let _owner = as_owner(a.owner);
    let rows = spi::all(spi::planned_anew(&a.sql.window(wanted)), Snapshot::New, args, |r| {
        Some((r.uuid(1)?, r.bool(2) == Some(true)))
    });
    let rows: Vec<(Uuid, bool)> = rows.into_iter().flatten().collect();
    let more = rows.len() == size as usize;
    let last = rows.last().map(|(key, _)| *key).filter(|_| more);
    let wanted = rows.into_iter().filter(|(_, wanted)| *wanted);
    (wanted.map(|(key, _)| key).collect(), last)
}

/// As many of a window's keys as a step takes, and where the next one goes on.
pub(super) fn at_most(
    size: i32,
    (mut keys, next): (Vec<Uuid>, Option<Uuid>),
) -> (Vec<Uuid>, Option<Uuid>) {
    if keys.len() <= size as usize {
        return (keys, next);
    }
    keys.truncate(size as usize);
    let last = keys.last().copied();
    (keys, last)
}

/// How many profiles one look at the table takes.
pub(super) const LOOK: i32 = 1000;

/// The keys that a query of the profile table returns, read as the tables' owner.
pub(super) fn read_keys<'a>(
    a: &Attached,
    sql: impl Into<spi::Statement<'a>>,
    args: &[Arg],
) -> Vec<Uuid> {
    let _owner = as_owner(a.owner);
    spi::all(sql, Snapshot::New, args, |r| r.uuid(1)).into_iter().flatten().collect()
}

/// Locks, computes and writes, and counts what came of it.
pub(super) fn recompute<'r>(a: &Attached, requests: &'r [Request<'r>]) -> Outcome<'r> {
    let outcome = document::recompute(a, requests);
    stats::refreshed(outcome.stored);
    outcome
}

/// Locks, computes and writes profiles by their keys; what could not be stored becomes pending keys.
pub(super) fn by_key(a: &Attached, keys: &[Uuid]) -> u64 {
    let values: Vec<Vec<Value>> = keys.iter().map(|k| vec![Value::uuid(k)]).collect();
    let (naming, step) = (a.key_naming(), &a.key_naming().step);
    let requests = [Request { step, values: &values, lookup: None }];
    let outcome = recompute(a, &requests);
    pending::leftovers(naming, outcome.unlocked(a, 0).into_iter(), "locked during a pass");
    for (reason, texts) in outcome.left() {
        pending::leftovers(naming, texts, reason);
    }
    outcome.stored
}
