//! `status`: one row that says what is attached, how much of it is cached, what waits, and what wants attention.
//!
//! Invariant: never waits for a lock of the profile table; where that is not free, its rows are not counted.

use super::counts::{counts, last_refresh, waiting};
use super::transactions::holders;
use super::warnings::warnings;
use crate::attachment::{self, Degraded, State};
use crate::definition::display;
use crate::error::{Error, check_interrupts};
use crate::pg::value::Value;
use crate::pg::{catalog, tuple};
use crate::settings;
use crate::wakeup;

/// What is attached, and whether its profile table could be locked for reading: who asks what is the matter
/// must not be made to wait for it.
fn attached() -> (State, bool) {
    loop {
        check_interrupts();
        catalog::accept_invalidations();
        let state = attachment::load();
        let State::Ready(a) = &state else {
            return (state, false);
        };
        let indexes = a.read.iter().copied();
        let mut indexes = indexes.filter(|r| catalog::table_of_index(*r) == Some(a.profile));
        let free =
            tuple::try_lock_for_reading(a.profile) && indexes.all(tuple::try_lock_for_reading);
        if !attachment::changed() {
            return (state, free);
        }
    }
}

/// The same where our tables are not as this library knows them: why, and nothing that stands in them.
pub fn status_of_another_layout(error: Error) -> Vec<Option<Value>> {
    let (message, hint) = error.message_and_hint();
    let mut row: Vec<Option<Value>> = (0..18).map(|_| None).collect();
    row.push(Value::texts(&[format!("reads fail: {message}. {hint}")]));
    row
}

/// The columns of `profile_cache.status`, in order.
pub fn status() -> Vec<Option<Value>> {
    let (state, free) = attached();
    let none = || None::<Value>;
    let (mut profile, mut document, mut tables, mut disabled) = (none(), none(), none(), none());
    let mut count = None;
    if let State::Ready(a) = &state {
        let name = |oid| catalog::relation_name(oid).map(|(s, n)| display(&s, &n));
        profile = name(a.profile).and_then(|n| Value::text(&n));
        document = name(a.document).and_then(|n| Value::text(&n));
        let used = a.definition.tables.iter();
        let names: Vec<String> = used.map(|t| display(&t.schema, &t.name)).collect();
        tables = Value::texts(&names);
        if let Some(Degraded::Triggers(missing)) = &a.degraded {
            disabled = Value::texts(missing);
        }
        count = free.then(|| counts(a));
    }
    let us = !matches!(state, State::None);
    let waiting = if us { waiting() } else { Default::default() };
    let refreshed = if us { last_refresh() } else { Default::default() };
    let held_up_by = holders();
    let warnings = warnings(&state, count.as_ref(), &waiting, &refreshed, &held_up_by);
    let names: Vec<String> = held_up_by.iter().map(|h| h.name.clone()).collect();
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
        Value::text(&wakeup::status()),
        refreshed.completed_at.map(Value::timestamptz),
        refreshed.outcome.as_deref().and_then(Value::text),
        Value::texts(&warnings),
    ]
}
