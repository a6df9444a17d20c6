//! What this backend remembers of its own transaction: statements in flight, what they touched,
//! profiles it deleted, and what it has already made pending.
//!
//! Invariant: every entry carries the subtransaction that made it, dies with it, and goes to the
//! parent when it commits. Nothing here is needed for truth after the transaction's end.

use crate::attachment::Attached;
use crate::pg::Oid;
use crate::pg::trigger::Column;
use crate::pg::value::{Uuid, Value, until_transaction_end};
use crate::pg::xact::{TOP_SUBTRANSACTION, command_id, subtransaction_id};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// A statement on a used table that has begun and whose effects are half visible.
struct Mark {
    table: Oid,
    command: u32,
    subtransaction: u32,
}

/// Values of one link's columns on changed rows.
#[derive(Clone)]
struct Touched {
    values: Vec<Value>,
    subtransaction: u32,
}

/// By link, and by image of the values.
type TouchedRows = HashMap<(Place, Vec<Vec<u8>>), Touched>;

/// A link of the attachment: the numbers of its table and of itself there.
pub type Place = (usize, usize);

#[derive(Default)]
struct Session {
    marks: Vec<Mark>,
    /// What leads to profiles that are not computed yet.
    touched: TouchedRows,
    /// What has been computed by subtransactions that may still be rolled back.
    settled: Vec<(u32, TouchedRows)>,
    /// Something has been computed before the transaction's end.
    settled_early: bool,
    /// The attachment whose links those are.
    attached: Option<Rc<Attached>>,
    /// Values of referenced profile columns, by columns, of rows this transaction deleted.
    deleted: HashMap<(Vec<i16>, Vec<String>), u32>,
    /// Pending keys this transaction has inserted, by columns and values.
    named: HashMap<(Vec<String>, Vec<String>), u32>,
    /// Profiles computed in this transaction, and whether more than those may have changed: for NOTIFY, so
    /// that what is rolled back meanwhile may stay.
    computed: BTreeSet<Uuid>,
    many: bool,
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
        s.touched.retain(|_, t| t.subtransaction != id);
        let (undone, settled) = std::mem::take(&mut s.settled)
            .into_iter()
            .partition(|(sub, _)| *sub == id);
        s.settled = settled;
        let undone = undone.into_iter().flat_map(|(_, touched)| touched);
        for (what, t) in undone.filter(|(_, t)| t.subtransaction != id) {
            // Of several, the one of the outermost subtransaction: it lives longest.
            let known = s.touched.entry(what).or_insert_with(|| t.clone());
            known.subtransaction = known.subtransaction.min(t.subtransaction);
        }
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
        for (sub, touched) in &mut s.settled {
            hand_over(sub);
            touched
                .values_mut()
                .for_each(|t| hand_over(&mut t.subtransaction));
        }
        s.settled.retain(|(sub, _)| *sub != TOP_SUBTRANSACTION);
        s.touched
            .values_mut()
            .for_each(|t| hand_over(&mut t.subtransaction));
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

/// Rows of `place` have changed: the profiles that these values of its `columns` (by their images) lead
/// to are to be computed before the transaction ends.
pub fn touch(place: Place, columns: &[Column], rows: HashMap<Vec<Vec<u8>>, Vec<Value>>) {
    let subtransaction = subtransaction_id();
    with(|s| {
        for (images, values) in rows {
            // One of an enclosing subtransaction stays: it lives longer.
            s.touched.entry((place, images)).or_insert_with(|| Touched {
                values: until_transaction_end(|| Column::copy(columns, &values)),
                subtransaction,
            });
        }
    });
}

/// Whether the links that this transaction has touched are those of `a`; where they are not, they mean
/// nothing any more.
pub fn touches_links_of(a: &Rc<Attached>) -> bool {
    with(|s| {
        let known = s.attached.get_or_insert_with(|| a.clone());
        Rc::ptr_eq(known, a) || known.definition == a.definition
    })
    .unwrap_or(false)
}

/// How many values have been touched that are not computed.
pub fn touched() -> usize {
    with(|s| s.touched.len()).unwrap_or(usize::MAX)
}

/// The touched values by link. From now on they count as computed, unless that is rolled back.
pub fn settle() -> Vec<(Place, Vec<Vec<Value>>)> {
    let id = subtransaction_id();
    let touched = with(|s| {
        let mut by_place = BTreeMap::<Place, Vec<Vec<Value>>>::new();
        for ((place, _), t) in &s.touched {
            by_place.entry(*place).or_default().push(t.values.clone());
        }
        let touched = std::mem::take(&mut s.touched);
        s.settled_early = true;
        if id != TOP_SUBTRANSACTION {
            s.settled.push((id, touched));
        }
        by_place.into_iter().collect()
    });
    touched.unwrap_or_default()
}

/// Whether there is something to do before the transaction ends: a statement on a used table is half
/// visible, or what ended ones changed is not computed yet.
pub fn unsettled() -> bool {
    with(|s| !s.marks.is_empty() || !s.touched.is_empty()).unwrap_or(true)
}

/// Whether reads must be live: also once something has been computed early, since a cursor's snapshot
/// from before that shows the change and the old document.
pub fn unsure() -> bool {
    unsettled() || with(|s| s.settled_early).unwrap_or(true)
}

/// These profiles have been computed.
pub fn computed(keys: impl Iterator<Item = Uuid>) {
    with(|s| {
        s.computed.extend(keys);
        if s.computed.len() > REMEMBERED {
            s.computed.clear();
            s.many = true;
        }
    });
}

/// More profiles may have changed than are computed.
pub fn many() {
    with(|s| s.many = true);
}

/// The profiles that may have changed; None for any of them.
pub fn changed() -> Option<BTreeSet<Uuid>> {
    with(|s| (!s.many).then(|| std::mem::take(&mut s.computed))).flatten()
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
