//! What refresh does to pending rows: epochs get their numbers, and what has been dealt with goes.
//!
//! Invariant: a number is given in a transaction that sees the row, and is committed before anything is done about
//! it. Whoever takes a row away has shown first that no document depends on it any more.
//!
//! Rules: E1, E11, E16, E17, E20.

use crate::blockers::OF_TABLE_HERE;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::Uuid;
use crate::pg::{catalog, xact};
use crate::rights::{as_ourselves, home};
use crate::xact_state;

/// Of a pending epoch `p`, that its transaction is over: it is seen to have committed before it has told others what it
/// invalidates, and gives up its own lock after that. A savepoint's is given up before, so xmin would not do.
pub const OVER: &str = "NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.locktype = 'transactionid' \
   AND l.transactionid = p.written_by::xid AND l.mode = 'ExclusiveLock')";

/// A pending epoch `p` that may get its number now. One that has redefined the document, or after which changes are noted
/// again, only when it is over: then can nobody go by what was before it in a snapshot that shows the number.
fn assignable() -> String {
    format!(
        "p.epoch IS NULL AND p.about IS NULL AND (NOT (p.redefined OR p.apply) OR {OVER}) \
         AND (NOT p.apply OR EXISTS (SELECT FROM profile_cache.unmatched_key AS b \
          WHERE b.pending = p.id AND NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.virtualtransaction = ANY (b.holders))))",
    )
}

/// Gives every pending epoch without a number the next one: at least one more than the current, and
/// the clock's, so that nobody who writes our columns while triggers are off can foretell it. Committed by the caller before anything
/// else is done about it. Returns whether there were any.
pub fn assign() -> bool {
    let _us = as_ourselves();
    let assignable = assignable();
    // Not those that are pending in this very transaction's future: only rows this snapshot sees.
    let waiting = spi::one(
        &format!("SELECT FROM profile_cache.pending_epoch AS p WHERE {assignable} LIMIT 1"),
        Snapshot::New,
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
    let redefined = spi::all(&numbered, Snapshot::New, &[], |r| r.bool(1) != Some(false));
    if redefined.contains(&true)
        && let Some((home, _)) = home()
    {
        catalog::invalidate(home);
    }
    true
}

/// A pending epoch is gone: its last pass has come to its end.
pub fn passed(epoch: i64) {
    let _us = as_ourselves();
    spi::run("DELETE FROM profile_cache.pending_epoch WHERE epoch = $1", &[Arg::int8(Some(epoch))]);
}

/// Pending keys are gone: their profiles are computed, or there are none.
pub fn delete(ids: &[Uuid]) {
    // One of them may be this very transaction's, which must be able to name it again.
    xact_state::forget_keys();
    let _us = as_ourselves();
    spi::run("DELETE FROM profile_cache.pending_key WHERE id = ANY ($1)", &[Arg::uuids(ids)]);
}

/// All but one of equal pending keys are gone.
pub fn delete_twins() {
    let _us = as_ourselves();
    // One of each is enough, the youngest, which says since when: whoever sees the others go sees it, committed before. But it waits
    // for the holders of now: those that were noted for it may have been gone when the others came.
    xact_state::forget_keys();
    spi::run(
        "WITH twice AS MATERIALIZED (SELECT r.id, r.n FROM (SELECT q.id, row_number() OVER \
           (PARTITION BY q.key_columns, q.key_values ORDER BY age(q.xmin), q.id) AS n, count(*) OVER \
           (PARTITION BY q.key_columns, q.key_values) AS of FROM profile_cache.pending_key AS q) AS r WHERE r.of > 1), \
          anew AS (DELETE FROM profile_cache.unmatched_key AS b WHERE b.pending = ANY (ARRAY(SELECT t.id FROM twice AS t))) \
         DELETE FROM profile_cache.pending_key AS p WHERE p.id = ANY (ARRAY(SELECT t.id FROM twice AS t WHERE t.n > 1))",
        &[],
    );
}

/// Writes down from which horizon on something is pending, so that a read need not step over what only old snapshots still
/// keep. Nothing where somebody may be adding to it. By refresh, when it has taken some away.
pub fn advance() {
    let _us = as_ourselves();
    let next = xact::next_full_xid();
    let others = spi::one(
        &format!(
            "SELECT FROM pg_catalog.pg_locks AS l WHERE {OF_TABLE_HERE} AND l.relation = 'profile_cache.pending_epoch'::pg_catalog.regclass \
              AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'SIReadLock') AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() LIMIT 1"
        ),
        Snapshot::New,
        &[],
        |_| (),
    );
    if others.is_some() {
        return;
    }
    spi::run(
        "INSERT INTO profile_cache.horizon (pending_from) \
         SELECT LEAST($1, (SELECT pg_catalog.min(p.horizon) FROM profile_cache.pending_epoch AS p)) \
         ON CONFLICT (singleton) DO UPDATE SET pending_from = excluded.pending_from",
        &[Arg::int8(i64::try_from(next).ok())],
    );
}
