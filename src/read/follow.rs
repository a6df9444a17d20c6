//! Whom a pending epoch concerns that says what leads to them.
//!
//! Invariant: a profile to which no value leads, in the reader's snapshot, is not concerned; and where that cannot be
//! told by a few probes of indexes, everybody is.
//!
//! Rules: R11.

use super::rule::LinkChange;
use crate::attachment::{self, Attached, Hop, Walk};
use crate::pg::scan::{Columns, HeapRow};
use crate::pg::value::{Uuid, Value};
use pgrx::pg_sys::{NAMEOID, TEXTOID};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::rc::Rc;

/// How many bytes the values of one epoch may take, and how many epochs' a session keeps: more than a read looks at.
const MOST_BYTES: usize = 8 * 1024;
const KEPT: usize = 250;
/// How many rows are looked at on the way back from one profile.
const MOST_ROWS: usize = 100;

thread_local! {
    /// What pending epochs say, by their ids, in the words of one definition: it is read once. Where one ceases to say it,
    /// its row does so.
    static READ: RefCell<(i64, HashMap<Uuid, Change>)> = RefCell::default();
}

type Change = Option<Rc<LinkChange>>;

/// What leads to the profiles that a pending epoch concerns; None where it concerns everybody: it does not say, or more
/// than a read looks at, or what this definition does not know, or from where no index leads back.
pub fn change(a: &Attached, row: &dyn Columns) -> Change {
    let at = a.epochs.link;
    row.get(at.values)?;
    // In the words of another definition, table and column may mean something else.
    if row.int8(at.definition?)? != a.words {
        return None;
    }
    let id = row.uuid(at.id)?;
    let change = READ.with_borrow_mut(|(words, read)| {
        if *words != a.words || read.len() >= KEPT {
            *words = a.words;
            read.clear();
        }
        read.entry(id).or_insert_with(|| said(a, row).map(Rc::new)).clone()
    })?;
    for (t, l) in &change.links {
        a.tables.get(*t)?.links.get(*l)?.walk(a)?;
    }
    Some(change)
}

fn said(a: &Attached, row: &dyn Columns) -> Option<LinkChange> {
    let at = a.epochs.link;
    let columns = row.texts(at.columns, NAMEOID, MOST_BYTES)?;
    if columns.len() != 1 {
        return None;
    }
    let (schema, table) = (row.text(at.schema, NAMEOID)?, row.text(at.table, NAMEOID)?);
    let links = a.definition.links_by(&schema, &table, &columns);
    let values = row.texts(at.values, TEXTOID, MOST_BYTES)?.into_iter().collect();
    (!links.is_empty()).then_some(LinkChange { links, values })
}

/// The values from which a link leads to this profile, in the active snapshot; None where that takes too many rows, or a
/// lock that is not to be had at once.
pub fn reached(a: &Attached, (t, l): (usize, usize), row: &HeapRow) -> Option<Vec<String>> {
    let Walk { start, hops } = a.tables.get(t)?.links.get(l)?.walk(a)?;
    // Whoever has taken a lock looks again: these may no longer be the columns.
    if !hops.iter().all(|hop| hop.rows.lock()) || attachment::changed() {
        return None;
    }
    let mut left = MOST_ROWS;
    let mut values: Vec<Value> = row.value(start.0, start.1).into_iter().collect();
    for Hop { rows, column: (column, oid) } in hops {
        let mut next = vec![];
        for value in &values {
            let each = |row: &HeapRow| {
                next.extend(row.value(*column, *oid));
                spend(&mut left)
            };
            rows.find(value, each)?;
        }
        values = next;
    }
    (left > 0).then(|| values.into_iter().map(Value::to_text).collect())
}

fn spend(left: &mut usize) -> ControlFlow<()> {
    *left = left.saturating_sub(1);
    if *left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
