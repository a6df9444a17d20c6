//! The trigger functions: distrust the row, mark the statement, and hand on what it touched.
//!
//! Invariant: after any statement on a used table, each profile whose document it may have changed
//! is remembered as touched, or has no stamp, or is pending in this transaction; and before the
//! transaction commits or is prepared, each touched one is computed anew under lock, or pending.
//! Whatever cannot be done is left pending; the app's write never waits for it and never fails by it.

use crate::attachment::{self, Attached, State, UsedLink, UsedTable};
use crate::definition::{self, Sql, Step};
use crate::document;
use crate::pending;
use crate::pg::catalog;
use crate::pg::fmgr::Call;
use crate::pg::identity::Pinned;
use crate::pg::spi::{self, Arg, At};
use crate::pg::trigger::{Column, Event, Firing, Tuple};
use crate::pg::value::Value;
use crate::pg::xact;
use crate::rights::as_owner;
use crate::settings;
use crate::xact_state;
use pgrx::pg_sys::Datum;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;

/// Where the epoch stands among [`definition::COLUMNS`].
const EPOCH: usize = 2;

/// BEFORE INSERT OR UPDATE FOR EACH ROW on the profile: keeps the four columns as they were whatever
/// the statement says, and takes the stamp away where a used column changes.
pub fn distrust(call: &Call) -> Datum {
    let firing = Firing::new(call, "profile_cache.distrust()", true, true);
    let relation = firing.relation();
    match attachment::load() {
        State::Ready(a) if a.profile == relation => {
            firing.keep_old(&a.columns.all(), EPOCH, a.own_columns(), a.tables.is_empty())
        }
        // Without a usable attachment nothing says what changed: take the stamp away at once.
        _ => {
            let columns = definition::COLUMNS.map(|(c, _)| catalog::column_number(relation, c));
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
    xact_state::raise_mark(firing.relation());
    Datum::null()
}

/// AFTER … FOR EACH STATEMENT on every used table.
pub fn after_statement(call: &Call) -> Datum {
    let firing = Firing::new(call, "profile_cache.after_statement()", false, false);
    xact_state::lower_mark(firing.relation());
    match attachment::load() {
        State::Ready(a) => {
            if let Some(t) = a.tables.iter().position(|t| t.oid == firing.relation()) {
                hand_on(&a, t, &firing);
            } else if a.tables.is_empty() {
                pending::everything("the attachment is broken");
            }
        }
        // What is missing may be there again before this transaction commits, and refresh have passed.
        State::Gone(_) => pending::everything("the attachment is broken"),
        // Or our own tables are out of sight, and may be there again.
        State::None => xact_state::lose_sight(),
    }
    Datum::null()
}

/// At the end of a transaction that leaves something unsettled, behind all of its triggers.
pub fn before_commit() {
    if xact_state::in_flight() {
        // Its caller stopped it early (SPI's row limit): its AFTER STATEMENT trigger never fired.
        return pending::everything("a statement ended without its trigger");
    }
    match attachment::load() {
        State::Ready(a) if xact_state::touches_links_of(&a) && !xact_state::lost_sight() => {
            settle(&a)
        }
        // Detached meanwhile.
        State::None => return,
        _ => pending::everything("what is attached has changed"),
    }
    if xact_state::unsettled() {
        // The app's code in an index expression has changed something.
        pending::everything("changed while the transaction ended");
    }
}

/// AFTER … FOR EACH STATEMENT on `profile_cache.attachment`: every backend forgets its copy.
pub fn attachment_changed(call: &Call) -> Datum {
    let firing = Firing::new(call, "profile_cache.attachment_changed()", false, false);
    catalog::invalidate(firing.relation());
    Datum::null()
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
            texts.for_each(|key| xact::notify(c"profile_cache", &key));
        }
        _ => xact::notify(c"profile_cache", "*"),
    }
}

fn hand_on(a: &Rc<Attached>, t: usize, firing: &Firing) {
    let (event, table) = (firing.event(), &a.tables[t]);
    if event == Event::Truncate {
        return pending::everything("TRUNCATE");
    }
    if !xact_state::touches_links_of(a) {
        return pending::everything("what is attached has changed");
    }
    let is_profile = table.oid == a.profile;
    if is_profile && event == Event::Delete {
        xact_state::many();
        record_deleted(a, firing);
    }
    if xact_state::everything_is_pending() {
        return;
    }
    // Of a deleted profile there is nothing to compute: its document went with it.
    let gone = |l: &UsedLink| is_profile && event == Event::Delete && l.link.member;
    let links = table.links.iter().enumerate().filter(|(_, l)| !gone(l));
    let mut links: Vec<(usize, &UsedLink, Leads)> =
        links.map(|(i, l)| (i, l, Leads::default())).collect();
    if links.is_empty() {
        return;
    }
    let mut over = false;
    // A BEFORE trigger behind ours could have put an old stamp back: on the profile, our own columns
    // are looked at too.
    let ours: Vec<Column> = if is_profile {
        a.columns.all().iter().map(|n| Column::of(a.profile, *n)).collect()
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
    let mut taken = Leads::default();
    firing.rows(|old, new| {
        let mut changed = false;
        for (_, link, leads) in &mut links {
            let also = if link.link.member { &ours[..] } else { &[] };
            if let (Some(old), Some(new)) = (old, new)
                && link.watched.iter().chain(also).all(|c| c.same(old, new))
            {
                continue;
            }
            changed = true;
            for row in [old, new].into_iter().flatten() {
                leads.add(row, &link.columns);
            }
            over |= leads.0.len() > LINKED;
        }
        if let Some(new) = new.filter(|_| changed)
            && !referenced.iter().flatten().all(|c| old.is_some_and(|old| c.same(old, new)))
        {
            taken.add(new, &key);
        }
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if over {
        return pending::everything("more rows changed than are named one by one");
    }
    pending::keys(
        a.key_naming(),
        taken.texts().into_iter(),
        "new in a REPEATABLE READ transaction",
    );
    for (l, link, leads) in links {
        if link.link.member && leads.0.len() <= settings::max_immediate() {
            xact_state::touch((t, l), &link.columns, leads.0);
            if xact_state::touched() > LINKED {
                pending::everything("more rows changed than are named one by one");
            }
        } else {
            follow_later(table, link, leads.texts());
        }
    }
}

/// Of one link, values that are written down for refresh. Beyond that everything is pending.
const LINKED: usize = 100_000;

/// Distinct values (by image) of one link's columns on changed rows. A row with a NULL among them
/// leads nowhere.
#[derive(Default)]
struct Leads(HashMap<Vec<Vec<u8>>, Vec<Value>>);

impl Leads {
    fn add(&mut self, row: &Tuple, columns: &[Column]) {
        if let Some((images, values)) = row.values(columns) {
            self.0.entry(images).or_insert_with(|| Column::copy(columns, &values));
        }
    }

    /// As text, the same under any settings.
    fn texts(self) -> Vec<Vec<String>> {
        let values: Vec<Vec<Value>> = self.0.into_values().collect();
        document::texts_of(&values)
    }
}

/// Changed rows of a dimension, or many of a member: whom they concern is found by refresh, from the
/// linking values.
fn follow_later(table: &UsedTable, link: &UsedLink, texts: Vec<Vec<String>>) {
    if texts.is_empty() {
        return;
    }
    if link.renamable {
        // Labels can be renamed, even swapped, before refresh reads them.
        return pending::everything("a row that an enum leads from changed");
    }
    let everyone = |v: &String| link.link.concerns_everyone(v);
    if texts.iter().flatten().any(everyone) {
        pending::everything("a row that every profile may show changed");
    } else if !link.link.route.is_empty() {
        let columns = link.link.column_names();
        pending::linked(&table.schema, &table.name, &columns, &texts);
    }
}

/// Lock, compute and write what this transaction has touched; what cannot be is pending.
fn settle(a: &Attached) {
    let _pinned = Pinned::new();
    let touched = xact_state::take_touched();
    let many = touched.iter().any(|(_, values)| values.len() > settings::max_immediate());
    if touched.is_empty() || xact_state::everything_is_pending() {
        return;
    }
    // The server's lock table may be full.
    let locks = !many && xact::subtransaction(|| document::try_locks(a)).unwrap_or(false);
    // DDL may have committed before the locks were taken.
    let a = match attachment::load() {
        State::Ready(now) if now.definition.follows_as(&a.definition) => now,
        _ => return pending::everything("what is attached has changed"),
    };
    let a = &*a;
    let mut links = vec![];
    for ((t, l), values) in touched {
        let link = a.tables.get(t).and_then(|table| Some((table, table.links.get(l)?)));
        let Some((table, link)) = link else {
            return pending::everything("the attachment is broken");
        };
        links.push((table, link, values));
    }
    if many {
        for (table, link, values) in links {
            follow_later(table, link, document::texts_of(&values));
        }
        return;
    }
    let not_now = if !locks {
        Some("a table of the document is locked by another transaction")
    } else if a.distrust.is_some() {
        // With a trigger of ours off, no mark says what is in flight.
        Some("changed while reads are live")
    } else {
        None
    };
    let mut locked = vec![];
    for (_, link, values) in links {
        let Some(step) = link.link.direct() else {
            continue;
        };
        if let Some(reason) = not_now {
            name_pending(a, link, step, document::texts_of(&values), reason);
            continue;
        }
        let found = document::lock(a, step, &values, link.probe.as_ref());
        let missing = document::not_locked(a, step, &values, &found);
        name_pending(a, link, step, missing, "locked by another transaction, or not there");
        locked.extend(found);
    }
    let prepared = document::prepare(a, &locked);
    if settings::notify() {
        xact_state::computed(prepared.keys());
    }
    for (reason, keys) in prepared.write(a).left() {
        let texts = keys.iter().map(|key| vec![Value::uuid(key).to_text()]);
        pending::keys(a.key_naming(), texts, reason);
    }
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
            let _owner = as_owner(a.owner);
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
    texts.retain(|v| !xact_state::was_deleted(&link.targets, v));
    if link.renamable && !texts.is_empty() {
        return pending::everything("a key that has an enum in it");
    }
    pending::keys(a.naming_of(step), texts.into_iter(), reason);
}

/// The profile's columns by which it is referred to: its key, and what members' foreign keys name.
fn naming_columns(a: &Attached) -> Vec<Vec<Column>> {
    let whole = a.naming.iter().filter(|n| n.columns.len() == n.types.len());
    let columns = whole.map(|n| n.columns.iter().map(|(c, _)| Column::of(a.profile, *c)));
    columns.map(Iterator::collect).collect()
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
                xact_state::record_deleted(columns.iter().map(|c| c.number).collect(), texts);
            }
        }
        left = left.saturating_sub(1);
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
}
