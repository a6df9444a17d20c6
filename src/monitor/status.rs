//! `status`: one row that says what is attached, how much of it is cached, what waits, and what wants attention.
//!
//! Invariant: says what the facts do, and waits for nobody.

use super::facts::Facts;
use super::warnings::warnings;
use crate::attachment::{Degraded, State};
use crate::definition::display;
use crate::error::Error;
use crate::pg::catalog;
use crate::pg::value::Value;
use crate::settings;
use crate::wakeup;

/// The same where our tables are not as this library knows them: why, and nothing that stands in them.
pub fn status_of_another_layout(error: Error) -> Vec<Option<Value>> {
    let (message, hint) = error.message_and_hint();
    let mut row: Vec<Option<Value>> = (0..18).map(|_| None).collect();
    row.push(Value::texts(&[format!("reads fail: {message}. {hint}")]));
    row
}

/// The columns of `profile_cache.status`, in order.
pub fn status() -> Vec<Option<Value>> {
    let facts = Facts::gather();
    let none = || None::<Value>;
    let (mut profile, mut document, mut tables, mut disabled) = (none(), none(), none(), none());
    if let Some(a) = facts.attached() {
        let name = |oid| catalog::relation_name(oid).map(|(s, n)| display(&s, &n));
        profile = name(a.profile).and_then(|n| Value::text(&n));
        document = name(a.document).and_then(|n| Value::text(&n));
        let used = a.definition.tables.iter();
        let names: Vec<String> = used.map(|t| display(&t.schema, &t.name)).collect();
        tables = Value::texts(&names);
        if let Some(Degraded::Triggers(missing)) = &a.degraded {
            disabled = Value::texts(missing);
        }
    }
    let Facts { state, count, waiting, refreshed, held_up_by, .. } = &facts;
    let warnings: Vec<String> = warnings(&facts).iter().map(|w| w.line()).collect();
    let names: Vec<String> = held_up_by.iter().map(|h| h.name.clone()).collect();
    let us = !matches!(state, State::None);
    let int = |n: i64| us.then(|| Value::int8(n));
    vec![
        profile,
        document,
        tables,
        count.as_ref().map(|c| Value::int8(c.rows)),
        count.as_ref().map(|c| Value::int8(c.cached)),
        count.as_ref().map(|c| Value::int8(c.stale)),
        count.as_ref().map(|c| Value::bool(c.exact)),
        int(waiting.keys),
        int(waiting.epochs),
        waiting.oldest().map(Value::timestamptz),
        Value::texts(&names),
        disabled.or_else(|| Value::texts(&[])),
        int(waiting.failures),
        Some(Value::bool(settings::enabled())),
        Some(Value::bool(settings::preloaded())),
        Value::text(&wakeup::worker().words()),
        refreshed.completed_at.map(Value::timestamptz),
        refreshed.outcome.as_deref().and_then(Value::text),
        Value::texts(&warnings),
    ]
}
