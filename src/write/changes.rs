//! What a statement has changed, in the words of the definition: the values that lead from its rows to profiles.
//!
//! Invariant: each profile whose document the statement may have changed is marked dirty, or pending in this
//! transaction. More than can be named one by one is everything.
//!
//! Rules: W9, W11, W15.

use crate::attachment::{Attached, UsedLink, UsedTable};
use crate::definition::{Sql, Step};
use crate::document;
use crate::pending;
use crate::pg::catalog;
use crate::pg::guard::LocalSettings;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::trigger::{Column, Event, Images, TriggerCall, Tuple};
use crate::pg::value::Value;
use crate::pg::xact;
use crate::rights::as_owner;
use crate::settings;
use crate::xact_state;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;

/// Records what a statement on the used table of this number has changed.
pub fn record_changes(a: &Rc<Attached>, t: usize, firing: &TriggerCall) {
    let (event, table) = (firing.event(), &a.tables[t]);
    if event == Event::Truncate {
        return pending::invalidate_all("TRUNCATE");
    }
    if !xact_state::touches_links_of(a) {
        return pending::invalidate_all("what is attached has changed");
    }
    let is_profile = table.oid == a.profile;
    if is_profile && event == Event::Delete {
        xact_state::notify_all();
        record_deleted(a, firing);
    }
    if xact_state::everything_is_pending() {
        return;
    }
    // Of a deleted profile there is nothing to compute: its document went with it.
    let gone = |l: &UsedLink| is_profile && event == Event::Delete && l.link.member;
    let links = table.links.iter().enumerate().filter(|(_, l)| !gone(l));
    let links: Vec<(usize, &UsedLink)> = links.collect();
    if links.is_empty() {
        return;
    }
    let Some(Changed { leads, taken }) = changed(a, t, &links, firing) else {
        return pending::invalidate_all("more rows changed than are named one by one");
    };
    for (link, values) in taken {
        const WHY: &str = "new in a REPEATABLE READ transaction";
        match link.and_then(|l| l.link.direct().map(|step| (l, step))) {
            Some((link, step)) => name_pending(a, link, step, values.texts(), WHY),
            None => pending::keys(a.key_naming(), values.texts().into_iter(), WHY),
        }
    }
    for ((l, link), leads) in links.into_iter().zip(leads) {
        if link.link.member && leads.len() <= settings::max_immediate() {
            xact_state::mark_dirty((t, l), &link.columns, leads.values);
            if xact_state::dirty() > LINKED {
                pending::invalidate_all("more rows changed than are named one by one");
            }
        } else {
            enqueue(a, table, link, leads.texts());
        }
    }
}

/// What the changed rows say.
struct Changed<'a> {
    /// Of each link, the values that lead to profiles.
    leads: Vec<LinkValues>,
    /// What names the profiles of rows that have taken over a value that another row had: by the links of members, or the
    /// profile's own key.
    taken: Vec<(Option<&'a UsedLink>, LinkValues)>,
}

/// Reads the transition tables; None where more has changed than is named one by one.
fn changed<'a>(
    a: &'a Attached,
    t: usize,
    links: &[(usize, &'a UsedLink)],
    firing: &TriggerCall,
) -> Option<Changed<'a>> {
    let table = &a.tables[t];
    let is_profile = table.oid == a.profile;
    // A BEFORE trigger behind ours could have put an old stamp back: on the profile, our own columns
    // are looked at too.
    let ours: &[Column] = if is_profile { &a.compared } else { &[] };
    // At REPEATABLE READ a row of this transaction's own that has taken over a referenced value shows,
    // in the old snapshot, the children of the profile that had it; and being new, it is none that
    // another transaction's change would run into.
    let (referenced, names) = match xact::has_one_snapshot() {
        true if is_profile => {
            let key = vec![Column::of(a.profile, a.key)];
            (naming_columns(a), vec![(None, key)])
        }
        // Likewise it shows a member's row that another transaction has deleted beside the one that has its number now; and
        // a view that comes from the one to that number again, both.
        true => {
            let members = links.iter().filter(|(_, l)| l.link.member && l.link.again);
            (unique_columns(a, t), members.map(|(_, l)| (Some(*l), l.columns.clone())).collect())
        }
        false => (vec![], vec![]),
    };
    let mut found = Changed {
        leads: links.iter().map(|_| LinkValues::default()).collect(),
        taken: names.iter().map(|(link, _)| (*link, LinkValues::default())).collect(),
    };
    let mut over = false;
    firing.rows(|old, new| {
        let mut changed = false;
        for ((_, link), leads) in links.iter().zip(&mut found.leads) {
            let also = if link.link.member { ours } else { &[] };
            if let (Some(old), Some(new)) = (old, new)
                && same(&link.watched, old, new)
                && same(also, old, new)
            {
                continue;
            }
            changed = true;
            // Most updates leave alone what leads to the profiles: what the one side says, the other does too.
            let moved = |old: &Tuple| new.is_none_or(|new| !same(&link.columns, old, new));
            for row in [old.filter(|old| moved(old)), new].into_iter().flatten() {
                leads.add(row, &link.columns);
            }
            over |= leads.len() > LINKED;
        }
        if let Some(new) = new.filter(|_| changed)
            && !referenced.iter().flatten().all(|c| old.is_some_and(|old| c.same(old, new)))
        {
            for ((_, columns), (_, taken)) in names.iter().zip(&mut found.taken) {
                taken.add(new, columns);
            }
        }
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    (!over).then_some(found)
}

fn same(columns: &[Column], old: &Tuple, new: &Tuple) -> bool {
    columns.iter().all(|c| c.same(old, new))
}

/// Of one link, values that are written down for refresh. Beyond that everything is pending.
const LINKED: usize = 100_000;

/// Distinct values (by image) of one link's columns on changed rows. A row with a NULL among them
/// leads nowhere.
#[derive(Default)]
struct LinkValues {
    values: HashMap<Images, Vec<Value>>,
    /// Those of the row that is looked at.
    images: Images,
}

impl LinkValues {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn add(&mut self, row: &Tuple, columns: &[Column]) {
        if row.images(columns, &mut self.images)
            && !self.values.contains_key(&self.images)
            && let Some(values) = row.values(columns)
        {
            self.values.insert(self.images.clone(), Column::copy(columns, &values));
        }
    }

    /// As text, the same under any settings.
    fn texts(self) -> Vec<Vec<String>> {
        let values: Vec<Vec<Value>> = self.values.into_values().collect();
        document::texts_of(&values)
    }
}

/// Changed rows of a dimension, or many of a member: whom they concern is found by refresh, from the
/// linking values.
pub fn enqueue(a: &Attached, table: &UsedTable, link: &UsedLink, texts: Vec<Vec<String>>) {
    if texts.is_empty() {
        return;
    }
    if link.has_enum {
        // Labels can be renamed, even swapped, before refresh reads them.
        return pending::invalidate_all("a row that an enum leads from changed");
    }
    let everyone = |v: &String| link.link.concerns_everyone(v);
    if link.link.is_whole() || texts.iter().flatten().any(everyone) {
        pending::invalidate_all("a row that every profile may show changed");
    } else if !link.link.route.is_empty() {
        let columns = link.link.column_names();
        pending::enqueue_link_change(a, (&table.schema, &table.name), &columns, texts);
    }
}

/// Pending keys from texts of the link's columns, but for profiles that this transaction deleted.
pub fn name_pending(
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
            spi::all(&sql, Snapshot::New, &[Arg::texts(&values)], |r| r.text(1))
        });
        let Ok(cast) = cast else {
            return pending::invalidate_all("a key that is none of the profile's type");
        };
        for (text, value) in texts.iter_mut().zip(cast) {
            if let (Some(place), Some(value)) = (text.get_mut(i), value) {
                *place = value;
            }
        }
    }
    texts.retain(|v| !xact_state::was_deleted(&link.targets, v));
    if link.has_enum && !texts.is_empty() {
        return pending::invalidate_all("a key that has an enum in it");
    }
    pending::keys(a.naming_of(step), texts.into_iter(), reason);
}

/// The profile's columns by which it is referred to: its key, and what members' foreign keys name.
fn naming_columns(a: &Attached) -> Vec<Vec<Column>> {
    let whole = a.naming.iter().filter(|n| n.columns.len() == n.types.len());
    let columns = whole.map(|n| n.columns.iter().map(|(c, _)| Column::of(a.profile, *c)));
    columns.map(Iterator::collect).collect()
}

/// A table's columns that the proof takes for unique; those that say for which rows go with them.
fn unique_columns(a: &Attached, t: usize) -> Vec<Vec<Column>> {
    let (table, of) = (a.tables[t].oid, &a.definition.tables[t]);
    let column = |name: &String| Some(Column::of(table, catalog::column_number(table, name)?));
    let partial = of.partial.iter().flat_map(|p| [&p.columns, &p.tested]);
    let all = of.unique.iter().chain(partial);
    all.map(|columns| columns.iter().filter_map(column).collect()).collect()
}

/// Remembers the deleted profiles under every column that members refer to, so that the cascades
/// that follow leave no pending keys.
fn record_deleted(a: &Attached, firing: &TriggerCall) {
    let _pinned = LocalSettings::new();
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
