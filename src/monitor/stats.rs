//! `stats`: one row of what has been counted in this database.
//!
//! Invariant: numbers that were counted, or none: where nothing is counted every column is NULL.

use crate::pg::value::Value;
use crate::stats::{self, Counter, MISSES, Totals};

/// The columns of `profile_cache.stats`, in order.
pub fn stats() -> Vec<Option<Value>> {
    stats::totals().map_or_else(|| (0..14).map(|_| None).collect(), |totals| columns(&totals))
}

fn columns(t: &Totals) -> Vec<Option<Value>> {
    let int = |n: u64| Some(Value::int8(i64::try_from(n).unwrap_or(i64::MAX)));
    let count = |counter| int(t.of(counter));
    let ms = |nanos| Value::float8(t.of(nanos) as f64 / 1e6);
    let reasons = MISSES.into_iter().chain([Counter::RowSecurity]);
    let reasons = reasons.map(|c| (reason(c).to_owned(), t.of(c).into()));
    let reasons = serde_json::Value::Object(reasons.collect());
    vec![
        int(t.hits),
        int(t.misses),
        Value::jsonb(&reasons),
        ms(Counter::OnReadNanos),
        count(Counter::AtCommit),
        ms(Counter::AtCommitNanos),
        count(Counter::ByRefresh),
        count(Counter::ByWorker),
        count(Counter::PendingKeys),
        count(Counter::PendingEpochs),
        count(Counter::Failures),
        count(Counter::LocksNotHad),
        count(Counter::Notifications),
        Some(Value::timestamptz(t.since)),
    ]
}

fn reason(counter: Counter) -> &'static str {
    match counter {
        Counter::NotCached => "not_cached",
        Counter::Expired => "expired",
        Counter::Pending => "pending",
        Counter::InTransaction => "in_transaction",
        Counter::FromFuture => "from_future",
        Counter::Disabled => "disabled",
        Counter::Unhealthy => "unhealthy",
        Counter::RowSecurity => "row_security",
        _ => "",
    }
}
