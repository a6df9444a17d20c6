//! What of a pass is still to be computed, in parts that any session may take: the coordinator, who has the refresh's turn,
//! lists the profiles of a pass into claims, and whoever comes takes some.
//!
//! Invariant: a claim goes in the transaction that computes its profiles, or leaves them as pending keys. So a snapshot
//! that shows no claim of a pass shows what became of all that were listed for it. A claim that another session has in hand
//! is passed over, never waited for; one whose session has died is there again.
//!
//! Rules: E9, E21, E22.

use crate::pg::catalog;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::{Uuid, scratch};
use crate::rights::as_ourselves;

/// How many profiles one claim has: such a row is not stored out of line, and a step takes as many as it has time for.
pub(super) const SIZE: usize = 100;
/// How many claims the coordinator keeps ahead of those who take them, in a pass that goes through the whole table.
pub(super) const AHEAD: i64 = 100;

/// Whether there is a table of them: not where the extension's SQL objects are still those of 0.1.0.
pub(super) fn there() -> bool {
    catalog::relation("profile_cache", "claim").is_some()
}

/// Adds keys of a pass, which are in their order and behind all that were added before. How many claims that makes.
pub(super) fn add(pass: &Uuid, keys: &[Uuid]) -> usize {
    let number = keys.len().div_ceil(SIZE);
    if number == 0 {
        return 0;
    }
    let _us = as_ourselves();
    // A long list is no more in memory than its rows are.
    scratch(|| {
        spi::run(
            "INSERT INTO profile_cache.claim (pass, up_to, keys) SELECT $1, c.keys[cardinality(c.keys)], c.keys \
             FROM generate_series(1, $3::int4) AS n, LATERAL (SELECT $2[(n - 1) * $4::int4 + 1:n * $4::int4] AS keys) AS c",
            &[
                Arg::uuid(Some(pass)),
                Arg::uuids(keys),
                Arg::int8(Some(number as i64)),
                Arg::int8(Some(SIZE as i64)),
            ],
        )
    });
    number
}

/// How many there are of a pass, whoever has them in hand, from the one with `from` on; no more than are kept ahead.
pub(super) fn count(pass: &Uuid, from: Option<&Uuid>) -> i64 {
    let _us = as_ourselves();
    spi::one(
        spi::planned_anew(
            "SELECT count(*) FROM (SELECT FROM profile_cache.claim AS c \
             WHERE c.pass = $1 AND ($2 IS NULL OR c.up_to >= $2) ORDER BY c.up_to LIMIT $3) AS c",
        ),
        Snapshot::New,
        &[Arg::uuid(Some(pass)), Arg::uuid(from), Arg::int8(Some(AHEAD))],
        |r| r.int8(1),
    )
    .flatten()
    .unwrap_or(AHEAD)
}

/// Whether there are any. Where an old snapshot keeps those that are done they need not be stepped over each time: most
/// are behind the ones that were taken last.
pub(super) fn any(pass: &Uuid, from: Option<&Uuid>) -> bool {
    count(pass, from) > 0 || from.is_some() && count(pass, None) > 0
}

/// Takes the first keys of a pass that nobody has in hand, at most so many, from the claim with `from` on: they are the
/// caller's to compute in this transaction.
pub(super) fn take(pass: &Uuid, from: Option<&Uuid>, size: i32) -> Vec<Uuid> {
    let claims = (size as usize).div_ceil(SIZE) as i64;
    let mut keys: Vec<Uuid> = {
        let _us = as_ourselves();
        let taken = spi::all(
            spi::planned_anew(
                "WITH taken AS (DELETE FROM profile_cache.claim AS c WHERE c.pass = $1 AND c.up_to = ANY (ARRAY( \
                   SELECT f.up_to FROM profile_cache.claim AS f WHERE f.pass = $1 AND ($2 IS NULL OR f.up_to >= $2) \
                   ORDER BY f.up_to LIMIT $3 FOR UPDATE SKIP LOCKED)) RETURNING c.keys) \
                 SELECT k.key FROM taken AS t, unnest(t.keys) AS k(key) ORDER BY 1",
            ),
            Snapshot::New,
            &[Arg::uuid(Some(pass)), Arg::uuid(from), Arg::int8(Some(claims))],
            |r| r.uuid(1),
        );
        taken.into_iter().flatten().collect()
    };
    let most = keys.len().min(size as usize);
    let rest = keys.split_off(most);
    add(pass, &rest);
    keys
}

/// The passes under way, by their epochs, and whether they are over everybody.
pub(super) fn passes() -> Vec<(i64, Uuid, bool)> {
    let _us = as_ourselves();
    spi::all(
        "SELECT d.epoch, d.pass, EXISTS (SELECT FROM profile_cache.pending_epoch AS p WHERE p.epoch = d.epoch AND p.link_schema IS NULL) \
         FROM profile_cache.epoch_progress AS d WHERE d.running ORDER BY 1",
        Snapshot::New,
        &[],
        |r| Some((r.int8(1)?, r.uuid(2)?, r.bool(3) != Some(false))),
    )
    .into_iter()
    .flatten()
    .collect()
}

/// Forgets those of passes that are no more. What somebody has in hand goes with what he does.
pub(super) fn forget_strays() {
    let _us = as_ourselves();
    spi::run(
        "DELETE FROM profile_cache.claim AS c WHERE (c.pass, c.up_to) IN (SELECT s.pass, s.up_to FROM profile_cache.claim AS s \
          WHERE NOT EXISTS (SELECT FROM profile_cache.epoch_progress AS d WHERE d.pass = s.pass AND d.running) \
          FOR UPDATE SKIP LOCKED)",
        &[],
    );
}
