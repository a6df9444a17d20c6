//! Whose document could not be computed or written: written down, so that others go on, and tried again later.
//!
//! Invariant: nothing but this file writes `profile_cache.failure`. It holds a key and an SQLSTATE, never a message,
//! which could hold the profile's data; and no more rows than are worth reading.
//!
//! Rules: E19.

use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::Uuid;
use crate::rights::as_ourselves;
use crate::stats::{self, Counter};
use crate::xact_state;

/// How many failures are remembered.
pub const MOST_FAILURES: i64 = 1000;

/// Remembers that a profile's document could not be computed or written; the SQLSTATE only, a message
/// may hold its data.
pub fn failed(key: &Uuid, sqlstate: &str) {
    stats::count(Counter::Failures);
    xact_state::leave_work();
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.failure (user_id, sqlstate) SELECT $1, $2 \
         WHERE (SELECT count(*) FROM (SELECT FROM profile_cache.failure LIMIT $3) AS f) < $3 \
          AND NOT EXISTS (SELECT FROM profile_cache.failure AS f WHERE f.user_id = $1 AND f.sqlstate = $2)",
        &[Arg::uuid(Some(key)), Arg::text(sqlstate), Arg::int8(Some(MOST_FAILURES))],
    );
}

/// Why a profile's document could not be computed or written last, and when.
pub fn failure(key: &Uuid) -> Option<(String, Option<i64>)> {
    let _us = as_ourselves();
    spi::one(
        "SELECT f.sqlstate, f.failed_at FROM profile_cache.failure AS f WHERE f.user_id = $1 ORDER BY f.failed_at DESC LIMIT 1",
        Snapshot::Active,
        &[Arg::uuid(Some(key))],
        |r| Some((r.text(1)?, r.timestamptz(2))),
    )
    .flatten()
}

/// The profiles whose document could not be computed or written, and when last.
pub fn failures() -> Vec<(Uuid, String)> {
    let _us = as_ourselves();
    let sql = "SELECT f.user_id, max(f.failed_at)::text FROM profile_cache.failure AS f GROUP BY 1";
    spi::all(sql, Snapshot::New, &[], |r| r.uuid(1).zip(r.text(2))).into_iter().flatten().collect()
}

/// Profiles whose failure is to be tried again, at most so many.
pub fn failures_due(most: i32) -> Vec<Uuid> {
    let _us = as_ourselves();
    spi::all(
        "SELECT f.user_id FROM profile_cache.failure AS f GROUP BY 1 \
         HAVING bool_and(coalesce(f.retry_at <= now(), true)) ORDER BY 1 LIMIT $1",
        Snapshot::New,
        &[Arg::int8(Some(i64::from(most)))],
        |r| r.uuid(1),
    )
    .into_iter()
    .flatten()
    .collect()
}

/// Puts the next attempt off: by a minute, then by twice as long each time, up to a day.
pub fn postpone(keys: &[Uuid]) {
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.failure AS f SET attempts = f.attempts + 1, \
          retry_at = now() + LEAST(interval '1 day', interval '1 minute' * (2 ^ LEAST(f.attempts - 1, 11))) \
         WHERE f.user_id = ANY ($1)",
        &[Arg::uuids(keys)],
    );
}

/// Forgets the failures of these profiles.
pub fn mended(keys: &[Uuid]) {
    let _us = as_ourselves();
    spi::run(
        "DELETE FROM profile_cache.failure AS f WHERE f.user_id = ANY ($1)",
        &[Arg::uuids(keys)],
    );
}
