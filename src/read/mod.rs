//! get_profile, get_profiles and explain: a profile's document, from the cache or from the view. [`rule`] says which.
//!
//! Invariant: the stored document is served only where it is shown to be what the view returns in
//! the same snapshot and at the same now(); otherwise the view is read. Both happen only for a row
//! whose `cached_profile` the caller may SELECT, and nothing is written.
//!
//! Rules: R4, R8, R9.
#![doc = include_str!("README.md")]

mod changed;
mod follow;
mod many;
mod rows;
mod rule;

pub use changed::changed_since;
pub use many::get_many;
pub use rows::{FreshnessRule, MOST as MOST_EPOCHS};
pub use rule::CachedRow;

use crate::attachment::{self, Attached, CacheColumns, Naming};
use crate::definition::{LookedAt, display};
use crate::error::Error;
use crate::failures;
use crate::iso8601::iso8601;
use crate::pending::{self, PendingKeys};
use crate::pg::guard::current_user;
use crate::pg::scan::{Columns, HeapRow, KeyHash};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::{Uuid, Value};
use crate::pg::{catalog, locks};
use crate::rights::{as_caller, as_owner};
use crate::settings;
use crate::stats::{self, Counter};
use crate::wakeup;
use crate::xact_state;
use rule::Miss;

/// What the reader's rule found for one key.
pub enum Lookup {
    /// The caller sees no such profile.
    Nothing,
    Hit {
        document: Option<Value>,
        looked: CachedRow,
    },
    Miss {
        reason: Miss,
        looked: Option<CachedRow>,
    },
}

/// Looks a profile up for the current user, without computing anything. `closely`: not only whether it
/// may be served, but all that may be said of its row.
fn look(a: &Attached, key: &Uuid, closely: bool) -> Lookup {
    if visible(a, key, closely) { look_at(a, key, closely) } else { Lookup::Nothing }
}

/// The same of a row that the caller may see, if it is there.
fn look_at(a: &Attached, key: &Uuid, closely: bool) -> Lookup {
    let reason = if !settings::enabled() {
        Some(Miss::Disabled)
    } else if a.degraded.is_some() {
        Some(Miss::Unhealthy)
    } else if xact_state::must_read_live() {
        Some(Miss::Unsettled)
    } else {
        None
    };
    if let Some(reason) = reason {
        return Lookup::Miss { reason, looked: None };
    }
    let judge = FreshnessRule::new(a);
    if judge.concerns_all() && !closely {
        return Lookup::Miss { reason: Miss::Pending, looked: None };
    }
    if let Some(found) = look_directly(a, key, &judge) {
        return found;
    }
    let (named, args) = PendingKeys::loose(a, Snapshot::Active).named(a, 2);
    let args: Vec<Arg> = std::iter::once(Arg::uuid(Some(key))).chain(args).collect();
    let _owner = as_owner(a.owner);
    let any = |names: &[KeyHash]| a.keys.any(&a.sets, || names.to_vec());
    let row = spi::one(spi::point(&a.sql.stored(&named)), Snapshot::Active, &args, |r| {
        (CachedRow::from_row(r, a, any), r.jsonb(LookedAt::DOCUMENT))
    });
    match row {
        None => Lookup::Nothing,
        Some((looked, document)) => judged(judge.of(&looked), looked, || document),
    }
}

/// A hit or a miss, by the reader's rule.
fn judged(
    verdict: Result<(), Miss>,
    looked: CachedRow,
    document: impl FnOnce() -> Option<Value>,
) -> Lookup {
    match verdict {
        Ok(()) => Lookup::Hit { document: document(), looked },
        Err(reason) => Lookup::Miss { reason, looked: Some(looked) },
    }
}

/// The same without SQL, where pending keys are found by their hashes.
fn look_directly(a: &Attached, key: &Uuid, judge: &FreshnessRule) -> Option<Lookup> {
    if !a.naming.iter().all(|n| n.plain) {
        return None;
    }
    let CacheColumns { document, valid_until, epoch, updated_at } = a.columns;
    let found = a.probe?.find(a.profile, Value::uuid(key).datum, |row| {
        let mut looked = CachedRow {
            epoch: row.int8(epoch),
            valid_until: row.int8(valid_until),
            updated_at: row.int8(updated_at),
            xmin: row.xmin(),
            named: false,
            key: Some(*key),
        };
        // What is not served anyway need not be looked for.
        let mut verdict = judge.of_row(&looked, row);
        if verdict.is_ok() && a.keys.any(&a.sets, || names_of(a, row)) {
            looked.named = true;
            verdict = Err(Miss::Pending);
        }
        judged(verdict, looked, || row.jsonb(document))
    })?;
    Some(found.unwrap_or(Lookup::Nothing))
}

/// What names the row: values with a NULL among them name none.
fn names_of(a: &Attached, row: &HeapRow) -> Vec<KeyHash> {
    let texts = |n: &Naming| -> Option<Vec<String>> {
        let texts = n.columns.iter().map(|(column, oid)| row.text(*column, *oid));
        texts.collect()
    };
    let names = a.naming.iter().map(|n| Some(n.hash(&texts(n)?)));
    names.flatten().collect()
}

/// The document of a profile for the current user.
pub fn get(key: &Uuid) -> Option<Value> {
    loop {
        let a = attachment::required_locked();
        match look(&a, key, false) {
            Lookup::Nothing => return None,
            Lookup::Hit { document, .. } => {
                stats::count(Counter::Hits);
                return document;
            }
            Lookup::Miss { reason, .. } => {
                reason.note(key);
                // By its number: what has its name by the time it is read may be another view.
                locks::lock_for_reading(a.document);
                if !attachment::changed() {
                    stats::count(reason.counter());
                    let _timed = stats::timed(Counter::OnReadNanos);
                    return live(&a, key);
                }
            }
        }
    }
}

impl Miss {
    /// Tells the background worker whom to compute first. Not where a change has no number yet, since nothing that is stored
    /// now would be trusted; nor where a pending key names him, which is the first thing that a refresh looks at.
    pub(super) fn note(self, key: &Uuid) {
        if matches!(self, Miss::Null | Miss::OtherAttachment | Miss::Expired | Miss::InPass) {
            wakeup::missed(key);
        }
    }

    /// Under which reason it is counted.
    fn counter(self) -> Counter {
        match self {
            Miss::Disabled => Counter::Disabled,
            Miss::Unhealthy => Counter::Unhealthy,
            Miss::Unsettled => Counter::InTransaction,
            Miss::Null | Miss::OtherAttachment => Counter::NotCached,
            Miss::Expired => Counter::Expired,
            Miss::Future => Counter::FromFuture,
            Miss::Pending | Miss::InPass => Counter::Pending,
        }
    }
}

/// The view's document, as the tables' owner, under pinned settings, in the caller's snapshot.
fn live(a: &Attached, key: &Uuid) -> Option<Value> {
    let _owner = as_owner(a.owner);
    let rows = spi::all(spi::point(&a.sql.live), Snapshot::Active, &[Arg::uuid(Some(key))], |r| {
        r.jsonb(1)
    });
    if rows.len() > 1 {
        Error::TwoDocuments.raise();
    }
    rows.into_iter().next().flatten()
}

/// Whether the caller may SELECT `cached_profile` of that row: raises 42501 as the SELECT would, and
/// is false where row security hides the row. `explains`: nobody is served by it, so that it does not count.
fn visible(a: &Attached, key: &Uuid, explains: bool) -> bool {
    check_may_read(a);
    if !catalog::row_security_applies(a.profile) {
        return true;
    }
    if !explains {
        stats::count(Counter::RowSecurity);
    }
    // His own query: policies go by who asks, and by settings of the session.
    let _caller = as_caller();
    sees(a, key)
}

/// Raises 42501 where the caller may not SELECT `cached_profile` and the key.
fn check_may_read(a: &Attached) {
    let user = current_user();
    let may = user == a.owner
        || catalog::may_use_schema_of(user, a.profile)
            && catalog::may_read_column(user, a.profile, a.columns.document)
            && catalog::may_read_column(user, a.profile, a.key);
    if !may {
        let name = catalog::relation_name(a.profile).map(|(s, t)| display(&s, &t));
        Error::NoPrivilege(name.unwrap_or_else(|| a.profile_name.clone())).raise();
    }
}

/// Whether the current user's own query finds the row.
fn sees(a: &Attached, key: &Uuid) -> bool {
    let sql = a.sql.visible();
    spi::one(spi::point(&sql), Snapshot::Active, &[Arg::uuid(Some(key))], |_| ()).is_some()
}

fn exists(a: &Attached, key: &Uuid) -> bool {
    let _owner = as_owner(a.owner);
    sees(a, key)
}

/// `explain`: where the document would come from, why, since when, and what to do.
pub fn explain(key: &Uuid) -> serde_json::Value {
    let a = attachment::required_locked();
    let found = match look(&a, key, true) {
        // Decided before the row was looked for.
        Lookup::Miss { looked: None, .. } if !exists(&a, key) => Lookup::Nothing,
        found => found,
    };
    let (served_from, reason, looked, bytes) = match &found {
        Lookup::Nothing => ("none", "no such profile is visible", None, None),
        Lookup::Hit { document, looked } => {
            ("cache", "fresh", Some(looked), document.map(Value::stored_bytes))
        }
        Lookup::Miss { reason, looked } => ("view", reason.name(), looked.as_ref(), None),
    };
    let (since, advice) = match &found {
        Lookup::Miss { reason, looked } => why(&a, key, *reason, looked.as_ref()),
        _ => (None, None),
    };
    let time = |t: Option<i64>| t.map(iso8601);
    serde_json::json!({
        "served_from": served_from,
        "reason": reason,
        "since": time(since),
        "advice": advice,
        "epoch": looked.and_then(|l| l.epoch),
        "valid_until": looked.and_then(|l| time(l.valid_until)),
        "updated_at": looked.and_then(|l| time(l.updated_at)),
        "bytes": bytes,
    })
}

/// Since when a profile is read from the view, where that is known, and what ends it.
fn why(
    a: &Attached,
    key: &Uuid,
    reason: Miss,
    looked: Option<&CachedRow>,
) -> (Option<i64>, Option<String>) {
    const REFRESH: &str = "CALL profile_cache.refresh()";
    let (since, advice) = match reason {
        Miss::Disabled => (None, "SET profile_cache.enabled = on"),
        Miss::Unhealthy => (None, "SELECT warnings FROM profile_cache.status"),
        Miss::Unsettled => (None, "COMMIT"),
        Miss::Future => (None, "read in a new transaction"),
        Miss::OtherAttachment => (None, REFRESH),
        Miss::Expired => (looked.and_then(|l| l.valid_until), REFRESH),
        Miss::Pending | Miss::InPass => (pending_since(a, key, looked), REFRESH),
        Miss::Null => {
            if let Some((sqlstate, at)) = failures::failure(key) {
                let advice = format!(
                    "it could not be computed or written (SQLSTATE {sqlstate}): mend that, and {REFRESH}"
                );
                return (at, Some(advice));
            }
            (None, REFRESH)
        }
    };
    (since, Some(advice.into()))
}

/// Since when something that concerns a profile is pending.
fn pending_since(a: &Attached, key: &Uuid, looked: Option<&CachedRow>) -> Option<i64> {
    if !looked.is_some_and(|l| l.named) {
        return pending::oldest_epoch();
    }
    let names = {
        let _owner = as_owner(a.owner);
        let sql = a.sql.stored("false");
        let args = [Arg::uuid(Some(key))];
        spi::one(spi::point(&sql), Snapshot::Active, &args, |r| CachedRow::names(r, a))?
    };
    pending::oldest_key(&a.sets, &names)
}
