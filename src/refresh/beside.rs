//! What the background worker asks of refresh beside its steps: documents that readers have missed, and when there will be work.
//!
//! Invariant: what is missed is computed by the rules of a step, and only where no reader would trust what is stored; a key that
//! nobody has is nobody's.
//!
//! Rules: B4, B5, B11.

use super::batch::{by_key, read_keys};
use super::course::Course;
use super::{ready, take_turn};
use crate::attachment::{self, State};
use crate::definition::Sql;
use crate::failures;
use crate::pg::bgworker;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::Uuid;
use crate::pg::xact;
use crate::rights::{as_ourselves, as_owner, home};
use crate::settings::{self, Compute};
use std::collections::HashSet;

/// Whether there is anything to refresh in this database.
pub fn is_attached() -> bool {
    home().is_some() && !matches!(attachment::load(), State::None)
}

/// Whether somebody waits for a lock that a refresh holds between its steps, as DROP EXTENSION does.
pub fn is_in_the_way() -> bool {
    bgworker::turn_is_waited_for()
}

/// What came of profiles that were missed.
pub struct Missed {
    /// How many are done with.
    pub done: usize,
    /// How many of them were stored.
    pub stored: u64,
    /// Some are pending now, as of rows that others have locked.
    pub left: bool,
}

/// Computes the first of these profiles, as many as a step takes, where what is stored is not to be trusted; of those for which the
/// view failed before only what was told: it has changed since. None where nothing can be computed now.
pub fn missed(keys: &[(Uuid, bool)], course: &mut Course) -> Option<Missed> {
    if !is_attached() {
        return None;
    }
    take_turn();
    let a = attachment::managed(attachment::required);
    let (current, first) = a.epochs.latest().zip(a.trusted_from)?;
    if a.degraded.is_some() || xact::has_one_snapshot() {
        return None;
    }
    // Those that are in the way may be so for long.
    let a = ready(&a).ok()?;
    let (now, _) = keys.split_at(keys.len().min(course.size(i32::MAX) as usize));
    let failed: HashSet<Uuid> = failures::failures().into_iter().map(|f| f.0).collect();
    let alive = now.iter().filter(|(key, told)| *told || !failed.contains(key));
    let alive: Vec<Uuid> = alive.map(|(key, _)| *key).collect();
    let args = [Arg::uuids(&alive), Arg::int8(Some(first)), Arg::int8(Some(current))];
    let stale = read_keys(&a, spi::planned_anew(&a.sql.among(Sql::UNTRUSTED_OR_OLD)), &args);
    // Nothing speaks of a profile whose stamp its writer has taken; of one that is locked now, a pending key does from here on.
    let stored = course.measured(|stored| *stored, || by_key(&a, &stale));
    Some(Missed { done: now.len(), stored, left: stored < stale.len() as u64 })
}

/// Whether anybody may have the worker compute what he has changed (`profile_cache.compute`), and with it what nobody speaks of.
pub fn computes_for_others() -> bool {
    if settings::compute() == Compute::Worker {
        return true;
    }
    let _us = as_ourselves();
    spi::one(
        "SELECT FROM pg_catalog.pg_db_role_setting AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase OR s.setdatabase = 0 \
         WHERE d.datname = current_database() AND EXISTS \
          (SELECT FROM unnest(s.setconfig) AS c WHERE lower(c) = 'profile_cache.compute=worker') LIMIT 1",
        Snapshot::New,
        &[],
        |_| (),
    )
    .is_some()
}

/// What a refresh has left.
pub struct Left {
    /// Something is pending that had to wait for others.
    pub pending: bool,
    /// When a document expires, or a failure is to be tried again, if one does.
    pub next_at: Option<i64>,
}

/// Without an index that finds the next document to expire: how long until the next look, in microseconds.
const UNINDEXED: i64 = 60_000_000;

pub fn left() -> Left {
    let State::Ready(a) = attachment::load() else {
        return Left { pending: false, next_at: None };
    };
    let (pending, retry_at) = {
        let _us = as_ourselves();
        spi::one(
            "SELECT EXISTS (SELECT FROM profile_cache.pending_key) OR EXISTS (SELECT FROM profile_cache.pending_epoch), \
              (SELECT min(f.retry_at) FROM profile_cache.failure AS f)",
            Snapshot::New,
            &[],
            |r| (r.bool(1) != Some(false), r.timestamptz(2)),
        )
        .unwrap_or_default()
    };
    let expires_at = if !a.definition.expires {
        None
    } else if a.expiry_indexed {
        let _owner = as_owner(a.owner);
        let sql = a.sql.next_to_expire();
        spi::one(spi::planned_anew(&sql), Snapshot::New, &[], |r| r.timestamptz(1)).flatten()
    } else {
        Some(xact::clock() + UNINDEXED)
    };
    Left { pending, next_at: [retry_at, expires_at].into_iter().flatten().min() }
}
