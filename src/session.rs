//! What this backend remembers of its own transaction: statements in flight, profiles it deleted,
//! and what it has already made pending.
//!
//! Invariant: every entry carries the subtransaction that made it, dies with it, and goes to the
//! parent when it commits. Nothing here is needed for truth after the transaction's end.

use crate::pg::Oid;
use crate::pg::xact::{command_id, subtransaction_id};
use std::cell::RefCell;
use std::collections::HashMap;

/// A statement on a used table that has begun and whose effects are half visible.
struct Mark {
    table: Oid,
    command: u32,
    subtransaction: u32,
}

#[derive(Default)]
struct Session {
    marks: Vec<Mark>,
    /// Values of referenced profile columns, by columns, of rows this transaction deleted.
    deleted: HashMap<(Vec<i16>, Vec<String>), u32>,
    /// Pending keys this transaction has inserted, by columns and values.
    named: HashMap<(Vec<String>, Vec<String>), u32>,
    /// The subtransaction that made everything pending.
    everything: Option<u32>,
    /// Epochs have been assigned in this transaction.
    assigned: bool,
}

thread_local! {
    static SESSION: RefCell<Session> = RefCell::default();
}

/// Bounds what is remembered: beyond it deletions are not recorded (their keys become pending, and
/// refresh drops them), and pending keys may be inserted twice.
const REMEMBERED: usize = 100_000;

fn with<R>(f: impl FnOnce(&mut Session) -> R) -> Option<R> {
    SESSION.with(|s| s.try_borrow_mut().ok().map(|mut s| f(&mut s)))
}

pub fn transaction_ended() {
    with(|s| *s = Session::default());
}

pub fn subtransaction_aborted(id: u32) {
    with(|s| {
        s.marks.retain(|m| m.subtransaction != id);
        s.deleted.retain(|_, sub| *sub != id);
        s.named.retain(|_, sub| *sub != id);
        s.everything = s.everything.filter(|sub| *sub != id);
    });
}

pub fn subtransaction_committed(id: u32, parent: u32) {
    let hand_over = |sub: &mut u32| {
        if *sub == id {
            *sub = parent;
        }
    };
    with(|s| {
        s.marks
            .iter_mut()
            .for_each(|m| hand_over(&mut m.subtransaction));
        s.deleted.values_mut().for_each(hand_over);
        s.named.values_mut().for_each(hand_over);
        s.everything.iter_mut().for_each(hand_over);
    });
}

/// A statement on `table` begins.
pub fn raise_mark(table: Oid) {
    let mark = Mark {
        table,
        command: command_id(),
        subtransaction: subtransaction_id(),
    };
    with(|s| s.marks.push(mark));
}

/// The latest statement on `table` has ended; its command id.
pub fn lower_mark(table: Oid) -> Option<u32> {
    with(|s| {
        let at = s.marks.iter().rposition(|m| m.table == table)?;
        Some(s.marks.remove(at).command)
    })
    .flatten()
}

/// Whether any statement on a used table is in flight.
pub fn in_flight() -> bool {
    with(|s| !s.marks.is_empty()).unwrap_or(true)
}

/// Whether a statement on `table` other than the one of `command` is in flight. One statement may
/// raise several marks (ON CONFLICT, MERGE, writable CTEs), all with the same command id; a
/// statement nested in it has a greater one.
pub fn other_in_flight(table: Oid, command: Option<u32>) -> bool {
    with(|s| {
        s.marks
            .iter()
            .any(|m| m.table == table && Some(m.command) != command)
    })
    .unwrap_or(true)
}

/// Records that this transaction deleted the profile whose `columns` held `values`.
pub fn record_deleted(columns: Vec<i16>, values: Vec<String>) {
    let id = subtransaction_id();
    with(|s| {
        if s.deleted.len() < REMEMBERED {
            s.deleted.insert((columns, values), id);
        }
    });
}

pub fn was_deleted(columns: &[i16], values: &[String]) -> bool {
    with(|s| !s.deleted.is_empty() && s.deleted.contains_key(&(columns.to_vec(), values.to_vec())))
        .unwrap_or(false)
}

/// True the first time this transaction names a pending key.
pub fn name_key(columns: &[String], values: &[String]) -> bool {
    let id = subtransaction_id();
    with(|s| {
        if s.named.len() >= REMEMBERED {
            return true;
        }
        s.named
            .insert((columns.to_vec(), values.to_vec()), id)
            .is_none()
    })
    .unwrap_or(true)
}

/// This transaction assigns epochs. What it computes from now on bears the new one, so what it
/// changes from now on must be pending anew.
pub fn assign() {
    forget_pending();
    with(|s| s.assigned = true);
}

/// Whether epochs have been assigned in this transaction, so that no one else can have seen them.
pub fn assigned() -> bool {
    with(|s| s.assigned).unwrap_or(true)
}

/// How many pending keys this transaction has named.
pub fn keys_named() -> usize {
    with(|s| s.named.len()).unwrap_or(0)
}

/// The pending keys are being deleted, those of this transaction included: it must insert them anew.
/// After a rollback of that, one is merely inserted twice.
pub fn forget_keys() {
    with(|s| s.named.clear());
}

/// The same for every pending row.
pub fn forget_pending() {
    forget_keys();
    with(|s| s.everything = None);
}

/// Whether this transaction has made everything pending: what it changes then is, too.
pub fn everything_is_pending() -> bool {
    with(|s| s.everything.is_some()).unwrap_or(false)
}

/// True the first time this transaction makes everything pending.
pub fn distrust_everything() -> bool {
    let id = subtransaction_id();
    with(|s| {
        let first = s.everything.is_none();
        s.everything.get_or_insert(id);
        first
    })
    .unwrap_or(true)
}
