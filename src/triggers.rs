//! The trigger functions: distrust the row, mark the statement, and hand on what it touched.
//!
//! Invariant: after any statement on a used table, each profile whose document it may have changed
//! is computed anew under lock, or has no stamp, or is pending in this transaction. Whatever cannot
//! be done here is left pending; the app's write never waits for it and never fails by it.

use crate::attachment::{self, Attached, State, UsedLink, UsedTable};
use crate::document::{self, By};
use crate::pending;
use crate::pg::catalog;
use crate::pg::fmgr::Call;
use crate::pg::identity::{Identity, Pinned};
use crate::pg::spi::{self, Arg, At};
use crate::pg::trigger::{Column, Event, Firing, Tuple};
use crate::pg::value::Value;
use crate::pg::xact;
use crate::routes::{self, Sql, Step};
use crate::session;
use crate::settings;
use pgrx::pg_sys::Datum;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Where the epoch stands among [`routes::COLUMNS`].
const EPOCH: usize = 2;

/// BEFORE INSERT OR UPDATE FOR EACH ROW on the profile: keeps the four columns as they were whatever
/// the statement says, and takes the stamp away where a used column changes.
pub fn distrust(call: &Call) -> Datum {
    let firing = Firing::new(call, "profile_cache.distrust()", true, true);
    let relation = firing.relation();
    match attachment::load() {
        State::Ready(a) if a.profile == relation => {
            let watched = a.table(relation).map_or(&[][..], |t| &t.watched);
            firing.keep_old(&a.columns, EPOCH, watched, a.tables.is_empty())
        }
        // Without a usable attachment nothing says what changed: take the stamp away at once.
        _ => {
            let columns = routes::COLUMNS.map(|(c, _)| catalog::column_number(relation, c));
            match columns {
                [Some(a), Some(b), Some(c), Some(d)] => {
                    firing.keep_old(&[a, b, c, d], EPOCH, &[], true)
                }
                _ => firing.unchanged(),
            }
        }
    }
}

/// BEFORE … FOR EACH STATEMENT on every used table: the statement is in flight.
pub fn before_statement(call: &Call) -> Datum {
    let firing = Firing::new(call, "profile_cache.before_statement()", true, false);
    session::raise_mark(firing.relation());
    Datum::null()
}

/// AFTER … FOR EACH STATEMENT on every used table.
pub fn after_statement(call: &Call) -> Datum {
    let firing = Firing::new(call, "profile_cache.after_statement()", false, false);
    let command = session::lower_mark(firing.relation());
    if let State::Ready(a) = attachment::load() {
        if let Some(table) = a.table(firing.relation()) {
            hand_on(&a, table, &firing, command);
        } else if a.tables.is_empty() {
            pending::everything("the attachment is broken");
        }
    }
    Datum::null()
}

/// AFTER … FOR EACH STATEMENT on `profile_cache.attachment`: every backend forgets its copy.
pub fn attachment_changed(call: &Call) -> Datum {
    let firing = Firing::new(call, "profile_cache.attachment_changed()", false, false);
    catalog::invalidate(firing.relation());
    Datum::null()
}

/// Distinct values (by image) of one link's column on changed rows.
#[derive(Default)]
struct Touched {
    values: HashMap<Vec<u8>, Value>,
}

impl Touched {
    fn add(&mut self, row: &Tuple, column: &Column) {
        if let Some(datum) = row.get(column.number) {
            let value = Value {
                datum,
                oid: column.oid,
            };
            self.values
                .entry(value.image(&column.storage))
                .or_insert_with(|| Value {
                    datum: column.storage.copy(datum),
                    ..value
                });
        }
    }
}

fn hand_on(a: &Attached, table: &UsedTable, firing: &Firing, command: Option<u32>) {
    let event = firing.event();
    if event == Event::Truncate {
        pending::everything("TRUNCATE");
        return;
    }
    let is_profile = table.oid == a.profile;
    if is_profile && event == Event::Delete {
        // Nothing to compute: the documents went with their rows.
        record_deleted(a, firing);
        return;
    }
    let bound = settings::max_immediate();
    let mut touched: Vec<Touched> = table.links.iter().map(|_| Touched::default()).collect();
    let mut over = false;
    // A BEFORE trigger behind ours could have put an old stamp back: on the profile, our own columns
    // are looked at too.
    let ours: Vec<Column> = if is_profile {
        a.columns
            .iter()
            .map(|n| Column::of(a.profile, *n))
            .collect()
    } else {
        vec![]
    };
    // At REPEATABLE READ a row of this transaction's own that has taken over a referenced value shows,
    // in the old snapshot, the children of the profile that had it; and being new, it is none that
    // another transaction's change would run into.
    let referenced = if is_profile && xact::has_one_snapshot() {
        naming_columns(a)
    } else {
        vec![]
    };
    let mut taken = Touched::default();
    firing.rows(|old, new| {
        if let (Some(old), Some(new)) = (old, new)
            && table.watched.iter().chain(&ours).all(|c| c.same(old, new))
        {
            return ControlFlow::Continue(());
        }
        if let Some(new) = new
            && !referenced
                .iter()
                .all(|c| old.is_some_and(|old| c.same(old, new)))
        {
            table.links.iter().for_each(|l| taken.add(new, &l.column));
        }
        for (link, touched) in table.links.iter().zip(&mut touched) {
            for row in [old, new].into_iter().flatten() {
                touched.add(row, &link.column);
            }
            over |= touched.values.len() > bound;
        }
        if over {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if over {
        pending::everything("more rows changed than profile_cache.max_immediate");
        return;
    }
    pending::keys(
        &a.definition.key,
        taken.values.into_values().map(Value::to_text),
        "new in a REPEATABLE READ transaction",
    );
    for (link, touched) in table.links.iter().zip(touched) {
        let values: Vec<Value> = touched.values.into_values().collect();
        if values.is_empty() {
            continue;
        }
        if link.link.direct().is_none() {
            dimension(table, link, &values);
        } else {
            direct(a, link, &values, command);
        }
    }
}

/// Values as text, the same under any settings.
fn texts(values: &[Value]) -> Vec<String> {
    let _pinned = Pinned::new();
    values.iter().map(|v| v.to_text()).collect()
}

/// A changed row of a dimension: whom it concerns is found by refresh, from the linking values.
fn dimension(table: &UsedTable, link: &UsedLink, values: &[Value]) {
    let texts = texts(values);
    if texts.iter().any(|t| link.link.concerns_everyone(t)) {
        pending::everything("a row that every profile may show changed");
    } else {
        pending::linked(&table.schema, &table.name, &link.link.column, &texts);
    }
}

/// Changed rows of a member or of the profile itself: lock, compute, write; the rest is pending.
fn direct(a: &Attached, link: &UsedLink, values: &[Value], command: Option<u32>) {
    let Some(step) = link.link.direct() else {
        return;
    };
    // A row written now would be one that a statement around this one may be about to update, which
    // PostgreSQL refuses (27000). A trigger function of the app's may run inside such a statement
    // before our own BEFORE STATEMENT trigger has marked it, hence the depth; and with a trigger of
    // ours off, no mark says so.
    if a.distrust.is_some()
        || xact::trigger_depth() > 1
        || session::other_in_flight(a.profile, command)
    {
        name_pending(a, link, step, texts(values), "written inside a statement");
        return;
    }
    let prepared = {
        let _pinned = Pinned::new();
        let locked = document::lock(a, step, values);
        let missing = document::not_locked(a, step, values, &locked);
        name_pending(
            a,
            link,
            step,
            missing,
            "locked by another transaction, or not there",
        );
        document::prepare(a, &locked)
    };
    let unwritten = prepared.write(a, By::Writer).unwritten;
    let texts = unwritten.iter().map(|key| Value::uuid(key).to_text());
    pending::keys(&a.definition.key, texts, "its row could not be written");
}

/// Pending keys from texts of the link's column, but for profiles that this transaction deleted.
fn name_pending(a: &Attached, link: &UsedLink, step: &Step, texts: Vec<String>, reason: &str) {
    let texts = if texts.is_empty() || link.link.r#type == link.link.target_type {
        texts
    } else {
        // A reader compares them as the profile's own type, and no value may fail it there.
        let cast = xact::subtransaction(|| {
            let _pinned = Pinned::new();
            let _owner = Identity::restricted(a.owner);
            spi::all(
                &Sql::as_target(&link.link),
                At::New,
                &[Arg::texts(&texts)],
                |r| r.text(1),
            )
        });
        match cast {
            Ok(cast) => cast.into_iter().flatten().collect(),
            Err(_) => return pending::everything("a key that is none of the profile's type"),
        }
    };
    let texts = texts
        .into_iter()
        .filter(|v| !session::was_deleted(link.target, v));
    pending::keys(&step.column, texts, reason);
}

/// The profile's columns by which it is referred to: its key, and what members' foreign keys name.
fn naming_columns(a: &Attached) -> Vec<Column> {
    a.naming()
        .iter()
        .filter_map(|(step, _)| catalog::column_number(a.profile, &step.column))
        .map(|number| Column::of(a.profile, number))
        .collect()
}

/// Remembers the deleted profiles under every column that members refer to, so that the cascades
/// that follow leave no pending keys.
fn record_deleted(a: &Attached, firing: &Firing) {
    let _pinned = Pinned::new();
    let columns = naming_columns(a);
    let mut left = settings::max_immediate();
    firing.rows(|old, _| {
        for c in &columns {
            if let Some(datum) = old.and_then(|row| row.get(c.number)) {
                session::record_deleted(c.number, Value { datum, oid: c.oid }.to_text());
            }
        }
        left = left.saturating_sub(1);
        if left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
}
