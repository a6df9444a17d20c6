//! The end of a transaction: what it has marked dirty is computed under lock, or without a stamp, or pending.
//!
//! Invariant: nothing here waits, and nothing here fails the app's transaction: what cannot be done is left
//! pending.
//!
//! Rules: W2, W3, W12, W15, W16, B11.

use super::changes::{enqueue, name_pending};
use crate::attachment::{self, Attached, State, UsedLink, UsedTable};
use crate::document::{self, Request};
use crate::pending;
use crate::pg::guard::LocalSettings;
use crate::pg::value::Value;
use crate::pg::xact;
use crate::settings::{self, Compute};
use crate::stats::{self, Counter};
use crate::wakeup;
use crate::xact_state;
use std::rc::Rc;

/// At the end of a transaction that leaves something unsettled, behind all of its triggers.
pub fn before_commit() {
    if xact_state::in_flight() {
        // Its caller stopped it early (SPI's row limit): its AFTER STATEMENT trigger never fired.
        return pending::invalidate_all("a statement ended without its trigger");
    }
    match attachment::load() {
        State::Ready(a) if xact_state::touches_links_of(&a) && !xact_state::lost_sight() => {
            compute_dirty(&a)
        }
        // Detached meanwhile.
        State::None => return,
        _ => pending::invalidate_all("what is attached has changed"),
    }
    if xact_state::unsettled() {
        // The app's code in an index expression has changed something.
        pending::invalidate_all("changed while the transaction ended");
    }
}

/// Tells who listens, before the transaction commits: whose document it may have changed, never what.
/// More than one statement may compute is told as one `*`.
pub fn announce() {
    if !settings::notify() {
        return;
    }
    match xact_state::changed() {
        Some(keys) if keys.len() <= settings::max_immediate() => {
            let texts = keys.iter().map(|key| Value::uuid(key).to_text());
            texts.for_each(|key| notify(&key));
        }
        _ => notify("*"),
    }
}

fn notify(payload: &str) {
    stats::count(Counter::Notifications);
    xact::notify(c"profile_cache", payload);
}

/// What is dirty by one link: the link, and the values of its columns.
struct Dirty<'a> {
    table: &'a UsedTable,
    link: &'a UsedLink,
    values: Vec<Vec<Value>>,
}

/// Computes what this transaction has marked dirty; what cannot be is pending.
fn compute_dirty(a: &Rc<Attached>) {
    let touched = xact_state::take_dirty();
    let many = touched.iter().any(|(_, values)| values.len() > settings::max_immediate());
    if touched.is_empty() || xact_state::everything_is_pending() {
        return;
    }
    // What a prepared transaction remembers, nobody tells when it is committed.
    let later = settings::compute() == Compute::Worker
        && !xact::is_being_prepared()
        && wakeup::computes().is_ok();
    // For all that computes, at once; to take a stamp prints nothing.
    let _pinned = (!later).then(LocalSettings::new);
    let locks = !many
        && match later {
            true => document::try_lock_profile(a),
            false => document::try_locks(a),
        };
    // DDL may have committed before the locks were taken.
    let a: Rc<Attached> = match attachment::load() {
        State::Ready(now) if now.follows_as(a) => now,
        _ => return pending::invalidate_all("what is attached has changed"),
    };
    let mut all = vec![];
    for ((t, l), values) in touched {
        let found = a.tables.get(t).and_then(|table| Some((table, table.links.get(l)?)));
        let Some((table, link)) = found else {
            return pending::invalidate_all("the attachment is broken");
        };
        all.push(Dirty { table, link, values });
    }
    if many {
        for d in all {
            enqueue(&a, d.table, d.link, document::texts_of(&d.values));
        }
    } else if !locks {
        leave(&a, &all, "a table of the document is locked by another transaction");
    } else if a.degraded.is_some() {
        // With a trigger of ours off, no mark says what is in flight.
        leave(&a, &all, "changed while reads are live");
    } else {
        recompute(&a, &all, later);
    }
}

/// Leaves all of it to refresh.
fn leave(a: &Attached, all: &[Dirty], reason: &str) {
    for d in all {
        if let Some(step) = d.link.link.direct() {
            name_pending(a, d.link, step, document::texts_of(&d.values), reason);
        }
    }
}

/// Computes all of it, or has the worker do it.
fn recompute(a: &Attached, all: &[Dirty], later: bool) {
    let direct = all.iter().filter_map(|d| Some((d.link, d.link.link.direct()?, &d.values)));
    let (links, requests): (Vec<&UsedLink>, Vec<Request>) = direct
        .map(|(link, step, values)| (link, Request { step, values, lookup: link.probe.as_ref() }))
        .unzip();
    let outcome = if later {
        document::distrust(a, &requests)
    } else {
        let _timed = stats::timed(Counter::AtCommitNanos);
        document::recompute(a, &requests)
    };
    stats::add(Counter::AtCommit, outcome.stored);
    if later {
        xact_state::leave_to_the_worker(outcome.computed());
    }
    for (n, (link, request)) in links.into_iter().zip(&requests).enumerate() {
        let unlocked = outcome.unlocked(a, n);
        name_pending(
            a,
            link,
            request.step,
            unlocked,
            "locked by another transaction, or not there",
        );
    }
    if settings::notify() {
        xact_state::computed(outcome.computed());
    }
    for (reason, texts) in outcome.left() {
        pending::keys(a.key_naming(), texts, reason);
    }
}
