//! What a write costs the app: the trigger functions, what a statement has changed (`changes.rs`), and the end of
//! a transaction (`commit.rs`).
//!
//! Invariant: after any statement on a used table, each profile whose document it may have changed
//! is marked dirty, or has no stamp, or is pending in this transaction; and before the
//! transaction commits or is prepared, each dirty one is computed anew under lock, has no stamp, or is pending.
//! Whatever cannot be done is left pending; the app's write never waits for it and never fails by it.
//!
//! May touch `document`, `pending` and what a transaction keeps; knows neither readers nor refresh.
//!
//! Rules: W1, W16, R7.
#![doc = include_str!("README.md")]

mod changes;
mod commit;

pub use commit::{announce, before_commit};

use crate::attachment::{self, State};
use crate::definition;
use crate::pending;
use crate::pg::catalog;
use crate::pg::fmgr::Call;
use crate::pg::trigger::{Column, TriggerCall};
use crate::xact_state;
use changes::record_changes;
use pgrx::pg_sys::Datum;

/// Where the epoch stands among [`definition::COLUMNS`].
const EPOCH: usize = 2;

/// BEFORE INSERT OR UPDATE FOR EACH ROW on the profile: keeps the four columns as they were whatever
/// the statement says, and takes the stamp away where a used column changes.
pub fn distrust(call: &Call) -> Datum {
    let firing = TriggerCall::new(call, "profile_cache.distrust()", true, true);
    let relation = firing.relation();
    match attachment::load() {
        State::Ready(a) if a.profile == relation => {
            firing.keep_old(&a.compared, EPOCH, a.own_columns(), a.tables.is_empty())
        }
        // Without a usable attachment nothing says what changed: take the stamp away at once.
        _ => {
            let columns = definition::COLUMNS.map(|(c, _)| catalog::column_number(relation, c));
            match columns {
                [Some(a), Some(b), Some(c), Some(d)] => {
                    let columns = [a, b, c, d].map(|number| Column::of(relation, number));
                    firing.keep_old(&columns, EPOCH, &[], true)
                }
                _ => firing.unchanged(),
            }
        }
    }
}

/// BEFORE … FOR EACH STATEMENT on every used table: the statement is in flight.
pub fn before_statement(call: &Call) -> Datum {
    let firing = TriggerCall::new(call, "profile_cache.before_statement()", true, false);
    xact_state::statement_started(firing.relation());
    Datum::null()
}

/// AFTER … FOR EACH STATEMENT on every used table.
pub fn after_statement(call: &Call) -> Datum {
    let firing = TriggerCall::new(call, "profile_cache.after_statement()", false, false);
    xact_state::statement_ended(firing.relation());
    match attachment::load() {
        State::Ready(a) => {
            if let Some(t) = a.tables.iter().position(|t| t.oid == firing.relation()) {
                record_changes(&a, t, &firing);
            } else if a.tables.is_empty() {
                pending::invalidate_all("the attachment is broken");
            }
        }
        // What is missing may be there again before this transaction commits, and refresh have passed.
        State::Gone(_) => pending::invalidate_all("the attachment is broken"),
        // Or our own tables are out of sight, and may be there again.
        State::None => xact_state::lose_sight(),
    }
    Datum::null()
}

/// AFTER … FOR EACH STATEMENT on `profile_cache.attachment`: every backend forgets its copy.
pub fn attachment_changed(call: &Call) -> Datum {
    let firing = TriggerCall::new(call, "profile_cache.attachment_changed()", false, false);
    catalog::invalidate(firing.relation());
    // A restored dump brings with it what is pending.
    xact_state::leave_work();
    Datum::null()
}
