//! What the rule of reading judges, fetched: the columns of a row, and what the active snapshot shows as pending.
//!
//! Invariant: reads only, and decides nothing but that what cannot be read is distrusted.
//!
//! Rules: R6.

use super::rule::{CachedRow, FreshnessRule, Pending, PendingEpoch};
use crate::attachment::Attached;
use crate::definition::LookedAt;
use crate::error::Error;
use crate::pending::MOST;
use crate::pg::scan::{EpochLook, KeyHash};
use crate::pg::spi::{self, Snapshot};
use crate::pg::xact;
use crate::rights::as_ourselves;

impl CachedRow {
    /// Of a row of [`Sql::stored`](crate::definition::Sql::stored) and its kin. `any`: whether one of these keys is
    /// pending.
    pub fn from_row(r: &spi::Row, a: &Attached, any: impl Fn(&[KeyHash]) -> bool) -> CachedRow {
        CachedRow {
            epoch: r.int8(LookedAt::EPOCH),
            valid_until: r.timestamptz(LookedAt::VALID_UNTIL),
            updated_at: r.timestamptz(LookedAt::UPDATED_AT),
            // None that can be read counts as the newest.
            xmin: r.int8(LookedAt::XMIN).and_then(|x| u32::try_from(x).ok()).unwrap_or(0),
            named: r.bool(LookedAt::NAMED).unwrap_or(true) || any(&CachedRow::names(r, a)),
            key: r.uuid(LookedAt::KEY),
        }
    }

    /// How pending keys that have a hash would name the row.
    pub fn names(r: &spi::Row, a: &Attached) -> Vec<KeyHash> {
        let missing = || Error::Internal("a profile's names are missing".into()).raise();
        let mut texts = r.texts(LookedAt::NAMES).unwrap_or_else(missing).into_iter();
        let names = a.naming.iter().filter(|n| n.plain);
        names.map(|n| n.hash(&texts.by_ref().take(n.types.len()).collect::<Vec<_>>())).collect()
    }
}

impl Pending {
    /// The state in a snapshot; `current`: what it shows as the current epoch.
    pub fn load(at: Snapshot, current: Option<i64>) -> Pending {
        let mut state = Pending { current, ..Pending::default() };
        let _us = as_ourselves();
        let rows = spi::query(
            "SELECT p.epoch, (SELECT d.passed_xmin::pg_catalog.text::pg_catalog.int8 FROM profile_cache.epoch_progress AS d \
              WHERE d.epoch OPERATOR(pg_catalog.=) p.epoch) \
             FROM profile_cache.pending_epoch AS p WHERE p.horizon OPERATOR(pg_catalog.>=) coalesce( \
              (SELECT h.pending_from FROM profile_cache.horizon AS h), 0) LIMIT 201",
            at,
            &[],
            |r| {
                state.epochs.push(PendingEpoch {
                    epoch: r.int8(1),
                    passed_xmin: r.int8(2).and_then(|x| u64::try_from(x).ok()),
                });
            },
        );
        state.overflow = rows > MOST;
        state
    }
}

impl FreshnessRule {
    /// In the active snapshot.
    pub fn new(a: &Attached) -> FreshnessRule {
        FreshnessRule::after(a, a.epochs.look())
    }

    /// The same where the active snapshot has been looked at already.
    pub fn after(a: &Attached, look: EpochLook) -> FreshnessRule {
        let pending = if look.pending {
            Pending::load(Snapshot::Active, look.current)
        } else {
            Pending { current: look.current, ..Pending::default() }
        };
        let next_xid = if pending.epochs.is_empty() { 0 } else { xact::next_full_xid() };
        FreshnessRule { pending, first: a.trusted_from, now: xact::now(), next_xid }
    }
}
