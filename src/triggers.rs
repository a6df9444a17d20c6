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
            firing.keep_old(&a.columns, EPOCH, a.own_columns(), a.tables.is_empty())
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

/// Distinct values (by image) of one link's columns on changed rows. A row with a NULL among them
/// leads nowhere.
#[derive(Default)]
struct Touched {
    values: HashMap<Vec<Vec<u8>>, Vec<Value>>,
}

impl Touched {
    fn add(&mut self, row: &Tuple, columns: &[Column]) {
        let value = |c: &Column| {
            Some(Value {
                datum: row.get(c.number)?,
                oid: c.oid,
            })
        };
        let Some(values) = columns.iter().map(value).collect::<Option<Vec<Value>>>() else {
            return;
        };
        let images = values.iter().zip(columns).map(|(v, c)| v.image(&c.storage));
        self.values.entry(images.collect()).or_insert_with(|| {
            let copied = values.iter().zip(columns).map(|(v, c)| Value {
                datum: c.storage.copy(v.datum),
                ..*v
            });
            copied.collect()
        });
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
        record_deleted(a, firing);
    }
    let bound = settings::max_immediate();
    // Of a deleted profile there is nothing to compute: its document went with it.
    let gone = |l: &UsedLink| is_profile && event == Event::Delete && l.link.member;
    let links: Vec<&UsedLink> = table.links.iter().filter(|l| !gone(l)).collect();
    if links.is_empty() {
        return;
    }
    let mut touched: Vec<Touched> = links.iter().map(|_| Touched::default()).collect();
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
    let (referenced, key) = if is_profile && xact::has_one_snapshot() {
        (naming_columns(a), vec![Column::of(a.profile, a.key)])
    } else {
        (vec![], vec![])
    };
    let mut taken = Touched::default();
    firing.rows(|old, new| {
        let mut changed = false;
        for (link, touched) in links.iter().zip(&mut touched) {
            let also = if link.link.member { &ours[..] } else { &[] };
            if let (Some(old), Some(new)) = (old, new)
                && link.watched.iter().chain(also).all(|c| c.same(old, new))
            {
                continue;
            }
            changed = true;
            for row in [old, new].into_iter().flatten() {
                touched.add(row, &link.columns);
            }
            over |= touched.values.len() > bound;
        }
        if let Some(new) = new.filter(|_| changed)
            && !referenced
                .iter()
                .flatten()
                .all(|c| old.is_some_and(|old| c.same(old, new)))
        {
            taken.add(new, &key);
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
        std::slice::from_ref(&a.definition.key),
        taken.values.into_values().map(|v| document::texts(&v)),
        "new in a REPEATABLE READ transaction",
    );
    for (link, touched) in links.iter().zip(touched) {
        let values: Vec<Vec<Value>> = touched.values.into_values().collect();
        if values.is_empty() {
            continue;
        }
        if link.link.member {
            direct(a, link, &values, command);
        } else {
            dimension(table, link, &values);
        }
    }
}

/// Values as text, the same under any settings.
fn texts(values: &[Vec<Value>]) -> Vec<Vec<String>> {
    let _pinned = Pinned::new();
    values.iter().map(|v| document::texts(v)).collect()
}

/// A changed row of a dimension: whom it concerns is found by refresh, from the linking values.
fn dimension(table: &UsedTable, link: &UsedLink, values: &[Vec<Value>]) {
    if link.renamable {
        // Labels can be renamed, even swapped, before refresh reads them.
        return pending::everything("a row that an enum leads from changed");
    }
    let texts = texts(values);
    let everyone = |v: &String| link.link.concerns_everyone(v);
    if texts.iter().flatten().any(everyone) {
        pending::everything("a row that every profile may show changed");
    } else if !link.link.route.is_empty() {
        let columns = link.link.column_names();
        pending::linked(&table.schema, &table.name, &columns, &texts);
    }
}

/// Changed rows of a member or of the profile itself: lock, compute, write; the rest is pending.
fn direct(a: &Attached, link: &UsedLink, values: &[Vec<Value>], command: Option<u32>) {
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
    let texts = unwritten.iter().map(|key| vec![Value::uuid(key).to_text()]);
    let key = std::slice::from_ref(&a.definition.key);
    pending::keys(key, texts, "its row could not be written");
}

/// Pending keys from texts of the link's columns, but for profiles that this transaction deleted.
fn name_pending(
    a: &Attached,
    link: &UsedLink,
    step: &Step,
    mut texts: Vec<Vec<String>>,
    reason: &str,
) {
    for (i, column) in link.link.columns.iter().enumerate() {
        if texts.is_empty() || column.r#type == column.target_type {
            continue;
        }
        // A reader compares them as the profile's own type, and no value may fail it there.
        let values: Vec<String> = texts.iter().filter_map(|t| t.get(i).cloned()).collect();
        let cast = xact::subtransaction(|| {
            let _pinned = Pinned::new();
            let _owner = Identity::restricted(a.owner);
            let sql = Sql::as_target(column);
            spi::all(&sql, At::New, &[Arg::texts(&values)], |r| r.text(1))
        });
        let Ok(cast) = cast else {
            return pending::everything("a key that is none of the profile's type");
        };
        for (text, value) in texts.iter_mut().zip(cast) {
            if let (Some(place), Some(value)) = (text.get_mut(i), value) {
                *place = value;
            }
        }
    }
    texts.retain(|v| !session::was_deleted(&link.targets, v));
    if link.renamable && !texts.is_empty() {
        return pending::everything("a key that has an enum in it");
    }
    pending::keys(&step.column_names(), texts.into_iter(), reason);
}

/// The profile's columns by which it is referred to: its key, and what members' foreign keys name.
fn naming_columns(a: &Attached) -> Vec<Vec<Column>> {
    let column = |name: &String| {
        let number = catalog::column_number(a.profile, name)?;
        Some(Column::of(a.profile, number))
    };
    a.naming()
        .iter()
        .filter_map(|(step, _)| step.column_names().iter().map(column).collect())
        .collect()
}

/// Remembers the deleted profiles under every column that members refer to, so that the cascades
/// that follow leave no pending keys.
fn record_deleted(a: &Attached, firing: &Firing) {
    let _pinned = Pinned::new();
    let columns = naming_columns(a);
    let mut left = settings::max_immediate();
    firing.rows(|old, _| {
        for columns in &columns {
            let text = |c: &Column| {
                let datum = old?.get(c.number)?;
                Some(Value { datum, oid: c.oid }.to_text())
            };
            if let Some(texts) = columns.iter().map(text).collect() {
                session::record_deleted(columns.iter().map(|c| c.number).collect(), texts);
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
