//! How many profiles there are, how many of them would be served from the cache, what waits for refresh, and how
//! that fared last.
//!
//! Invariant: rows are judged by the reader's own rule ([`FreshnessRule`]) and only counted; of a large table a sample of
//! blocks is read.

use crate::attachment::Attached;
use crate::error::Error;
use crate::failures;
use crate::iso8601::iso8601;
use crate::pending::{Anyone, PendingKeys};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::read::{CachedRow, FreshnessRule};
use crate::refresh::turn;
use crate::rights::{as_ourselves, as_owner};

/// Blocks of the profile table that `status` reads at most; of a larger one it takes a sample.
const BLOCKS: f64 = 2000.0;

/// How many blocks the profile table has: none, as far as is known, where it has just been dropped.
pub(super) fn blocks(a: &Attached) -> i64 {
    spi::one(
        "SELECT pg_catalog.pg_relation_size($1) OPERATOR(pg_catalog./) \
         pg_catalog.current_setting('block_size')::pg_catalog.int8",
        Snapshot::Active,
        &[Arg::oid(a.profile)],
        |r| r.int8(1),
    )
    .flatten()
    .unwrap_or(0)
}

/// Rows, cached, stale; and whether they were counted or estimated.
pub(super) struct Counts {
    pub rows: i64,
    pub cached: i64,
    pub stale: i64,
    pub exact: bool,
    /// Pending keys that a reader takes as naming any profile; or more than are looked at here.
    pub anyone: Option<Anyone>,
}

pub(super) fn counts(a: &Attached) -> Counts {
    let judge = FreshnessRule::new(a);
    let keys = PendingKeys::load(a, Snapshot::Active);
    let (named, args) = keys.named(a, 2);
    let _owner = as_owner(a.owner);
    let share = (BLOCKS / blocks(a).max(1) as f64).min(1.0);
    let mut all = vec![Arg::float4(100.0 * share as f32)];
    all.extend(args);
    let (mut rows, mut cached) = (0, 0);
    spi::query(&a.sql.sampled(&named), Snapshot::Active, &all, |r| {
        rows += 1;
        let looked = CachedRow::from_row(r, a, |names| keys.any(names));
        cached += i64::from(a.degraded.is_none() && judge.of(&looked).is_ok());
    });
    // What the blocks that were read hold stands for the others. What ANALYZE has left behind does not: a
    // refresh doubles the blocks of a table, and not its rows.
    let of_all = |n: i64| (n as f64 / share).round() as i64;
    let (rows, cached) = (of_all(rows), of_all(cached));
    Counts { rows, cached, stale: rows - cached, exact: share >= 1.0, anyone: keys.anyone() }
}

/// What waits for refresh, and what has failed.
#[derive(Default)]
pub(super) struct Waiting {
    pub keys: i64,
    pub oldest_key: Option<i64>,
    pub epochs: i64,
    pub oldest_epoch: Option<i64>,
    /// One of the epochs has no number, and does not say what leads to whom it concerns.
    pub unnumbered: bool,
    /// One of them does not say that, with a number or without.
    pub to_all: bool,
    /// One has had no complete pass.
    pub unpassed: bool,
    /// Since when the oldest waits of those to which refresh has not come, and of those that it is following.
    pub oldest_unfollowed: Option<i64>,
    pub oldest_passing: Option<i64>,
    /// Since when there is DDL that nobody has looked at.
    pub unseen_since: Option<i64>,
    pub failures: i64,
    /// No more of them are remembered.
    pub failures_full: bool,
    pub failing_since: Option<i64>,
    pub sqlstate: Option<String>,
}

impl Waiting {
    pub fn oldest(&self) -> Option<i64> {
        self.oldest_key.into_iter().chain(self.oldest_epoch).min()
    }

    /// Since when the oldest waits of those that have had no complete pass.
    pub fn oldest_unpassed(&self) -> Option<i64> {
        self.oldest_unfollowed.into_iter().chain(self.oldest_passing).min()
    }
}

pub(super) fn waiting() -> Waiting {
    let _us = as_ourselves();
    spi::one(
        "SELECT k.*, e.*, f.* FROM \
          (SELECT count(*), min(p.created_at) FROM profile_cache.pending_key AS p) AS k, \
          (SELECT count(*), min(p.created_at), coalesce(bool_or(p.epoch IS NULL AND p.link_schema IS NULL), false), \
            coalesce(bool_or(p.link_schema IS NULL), false), coalesce(bool_or(d.passed_xmin IS NULL), false), \
            min(p.created_at) FILTER (WHERE d.passed_xmin IS NULL AND d.running IS NOT TRUE), \
            min(p.created_at) FILTER (WHERE d.passed_xmin IS NULL AND d.running), \
            min(p.created_at) FILTER (WHERE p.about IS NOT NULL) \
           FROM profile_cache.pending_epoch AS p LEFT JOIN profile_cache.epoch_progress AS d ON d.epoch = p.epoch) AS e, \
          (SELECT count(DISTINCT x.user_id), count(*), min(x.failed_at), (array_agg(x.sqlstate ORDER BY x.failed_at DESC))[1] \
           FROM profile_cache.failure AS x) AS f",
        Snapshot::Active,
        &[],
        |r| {
            Some(Waiting {
                keys: r.int8(1)?,
                oldest_key: r.timestamptz(2),
                epochs: r.int8(3)?,
                oldest_epoch: r.timestamptz(4),
                unnumbered: r.bool(5)?,
                to_all: r.bool(6)?,
                unpassed: r.bool(7)?,
                oldest_unfollowed: r.timestamptz(8),
                oldest_passing: r.timestamptz(9),
                unseen_since: r.timestamptz(10),
                failures: r.int8(11)?,
                failures_full: r.int8(12)? >= failures::MOST_FAILURES,
                failing_since: r.timestamptz(13),
                sqlstate: r.text(14),
            })
        },
    )
    .flatten()
    .unwrap_or_else(|| Error::Internal("what is pending could not be counted".into()).raise())
}

/// How refresh fared last.
#[derive(Default)]
pub(super) struct LastRefresh {
    pub began_at: Option<i64>,
    pub completed_at: Option<i64>,
    pub outcome: Option<String>,
    /// A call is at it now. None on a standby, where the primary's locks are not to be seen.
    pub under_way: Option<bool>,
}

impl LastRefresh {
    /// What the last call has not done, in words.
    pub fn undone(&self) -> Option<String> {
        let began = iso8601(self.began_at?);
        if let Some(outcome) = &self.outcome {
            return Some(format!(
                "the last refresh, begun at {began}, has left something undone ({outcome})"
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
        Some(format!("the last refresh, begun at {began}, {so_far}, and {before}"))
    }

    /// Whether one that began after `at` has come through.
    pub fn came_through_since(&self, at: i64) -> bool {
        self.began_at.is_some_and(|began| began > at) && self.completed_at >= self.began_at
    }
}

pub(super) fn last_refresh() -> LastRefresh {
    let _us = as_ourselves();
    // A call excludes others by its session's lock on `pending`.
    let found = spi::one(
        &format!(
            "SELECT r.began_at, r.completed_at, r.outcome, NOT pg_is_in_recovery(), EXISTS (SELECT FROM pg_locks AS l WHERE {}) \
             FROM (SELECT) AS one LEFT JOIN profile_cache.last_refresh AS r ON true",
            turn()
        ),
        Snapshot::Active,
        &[],
        |r| LastRefresh {
            began_at: r.timestamptz(1),
            completed_at: r.timestamptz(2),
            outcome: r.text(3),
            under_way: r.bool(5).filter(|_| r.bool(4) == Some(true)),
        },
    );
    found.unwrap_or_else(|| Error::Internal("a query of one row has returned none".into()).raise())
}
