//! get_profiles: the documents of many profiles, in the order in which they are asked for.
//!
//! Invariant: each is what `get_profile` gives for it in the same snapshot. What is pending is read once for a page of
//! them, since the active snapshot shows the same as long as it is active; whether the caller sees a row, for each.
//!
//! Rules: R4, R7, R8, R9.

use super::{Lookup, live, look_at, look_directly, visible};
use crate::attachment::{self, Attached};
use crate::error::{Error, check_interrupts};
use crate::pg::locks;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::{Uuid, Value, scratch};
use crate::read::FreshnessRule;
use crate::rights::as_owner;
use crate::settings;
use crate::stats::{self, Counter};
use crate::xact_state;
use std::collections::HashMap;

/// So many documents are in memory at once.
const PAGE: usize = 500;

/// Hands each key and its document for the current user to `put`, in order.
pub fn get_many(keys: &[Option<Uuid>], mut put: impl FnMut(Option<&Uuid>, Option<Value>)) {
    for page in keys.chunks(PAGE) {
        check_interrupts();
        scratch(|| {
            for (key, document) in page.iter().zip(documents(page)) {
                put(key.as_ref(), document);
            }
        });
    }
}

/// A document for each key.
fn documents(keys: &[Option<Uuid>]) -> Vec<Option<Value>> {
    // As a strict function: without a key nothing is asked.
    if keys.iter().all(Option::is_none) {
        return vec![None; keys.len()];
    }
    loop {
        let a = attachment::required_locked();
        let looked = looked_up(&a, keys);
        let missed: Vec<Uuid> = keys.iter().zip(&looked).filter_map(missed).collect();
        if !missed.is_empty() {
            // As in `get`: of a view that has become another, nothing is read; and all is looked at again.
            locks::lock_for_reading(a.document);
            if attachment::changed() {
                continue;
            }
        }
        looked.iter().flatten().for_each(counted);
        let live = if missed.is_empty() {
            HashMap::new()
        } else {
            let _timed = stats::timed(Counter::OnReadNanos);
            live_many(&a, &missed)
        };
        let document = |(key, found): (&Option<Uuid>, Option<Lookup>)| match found? {
            Lookup::Nothing => None,
            Lookup::Hit { document, .. } => document,
            Lookup::Miss { .. } => live.get(key.as_ref()?).copied().flatten(),
        };
        return keys.iter().zip(looked).map(document).collect();
    }
}

fn missed((key, found): (&Option<Uuid>, &Option<Lookup>)) -> Option<Uuid> {
    let Some(Lookup::Miss { reason, .. }) = found else { return None };
    key.inspect(|key| reason.note(key))
}

fn counted(found: &Lookup) {
    match found {
        Lookup::Nothing => {}
        Lookup::Hit { .. } => stats::count(Counter::Hits),
        Lookup::Miss { reason, .. } => stats::count(reason.counter()),
    }
}

/// What `look` finds for each key. What a policy's code changes meanwhile, the active snapshot does not show.
fn looked_up(a: &Attached, keys: &[Option<Uuid>]) -> Vec<Option<Lookup>> {
    let may_serve = settings::enabled() && a.degraded.is_none() && !xact_state::must_read_live();
    let judge = may_serve.then(|| FreshnessRule::new(a)).filter(|judge| !judge.concerns_all());
    let each = |key: &Uuid| {
        if !visible(a, key, false) {
            return Lookup::Nothing;
        }
        let found = judge.as_ref().and_then(|judge| look_directly(a, key, judge));
        found.unwrap_or_else(|| look_at(a, key, false))
    };
    keys.iter().map(|key| key.as_ref().map(each)).collect()
}

/// The view's documents, as `live` reads one.
fn live_many(a: &Attached, keys: &[Uuid]) -> HashMap<Uuid, Option<Value>> {
    if let [key] = keys {
        return HashMap::from([(*key, live(a, key))]);
    }
    let mut found = HashMap::new();
    let _owner = as_owner(a.owner);
    spi::query(spi::point(&a.sql.compute), Snapshot::Active, &[Arg::uuids(keys)], |r| {
        if let Some(key) = r.uuid(1)
            && found.insert(key, r.jsonb(2)).is_some()
        {
            Error::TwoDocuments.raise();
        }
    });
    found
}
