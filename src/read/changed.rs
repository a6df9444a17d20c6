//! changed_since: whose document may have changed since a position in the order of transactions.
//!
//! Invariant: each change of a document that was committed since is named, or everybody is. A document changes by a new version
//! of its row, whose transaction is not older than the position; what is still pending is of such a transaction, too. What is
//! named beside may be as it was.
//!
//! Rules: R13.

use super::check_may_read;
use crate::attachment;
use crate::pending;
use crate::pg::catalog;
use crate::pg::spi::{self, Arg};
use crate::pg::value::Uuid;
use crate::pg::xact;
use crate::rights::{as_caller, as_owner};

/// How many keys are in memory at once.
const PART: usize = 10_000;
/// Transactions that may begin between the look at the next one's id and the snapshot that finds the rows.
const MEANWHILE: u64 = 1 << 24;
/// What a row version says of its transaction's id is that number's rest by this.
const LOW_BITS: u64 = 1 << 32;

/// Hands to `put` the keys of the profiles that the caller sees and whose document may have changed since all transactions
/// below `since` had ended; None where any may have: changes are not followed, something is pending, or the position is of
/// another server, or out of reach.
pub fn changed_since(since: u64, mut put: impl FnMut(Option<Uuid>)) {
    let a = attachment::required_locked();
    check_may_read(&a);
    let next = xact::next_full_xid() + MEANWHILE;
    let reachable = since <= next - MEANWHILE && next - since < LOW_BITS;
    // Where changes are not followed, none leaves a trace.
    if a.degraded.is_some() || !reachable || pending::any_since(since, next) {
        put(None);
        return;
    }
    let args = [Arg::int8(i64::try_from(since).ok()), Arg::int8(i64::try_from(next).ok())];
    // His own query, as that of `visible`, where it matters who asks; xmin needs a right of its own.
    let by_policies = catalog::row_security_applies(a.profile);
    let _guard = if by_policies { as_caller() } else { as_owner(a.owner) };
    let sql = a.sql.written_between();
    spi::in_parts(
        sql.as_str(),
        &args,
        PART,
        |r| r.uuid(1),
        |keys| keys.into_iter().for_each(&mut put),
    );
}
