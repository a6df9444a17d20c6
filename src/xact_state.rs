//! What this backend remembers of its own transaction: statements in flight, what they touched,
//! profiles it deleted, and what it has already made pending.
//!
//! Invariant: what a subtransaction adds stands in a level of its own, which goes with it, or into its
//! parent's when it is released. Nothing here is needed for truth after the transaction's end.
//!
//! Rules: W8, W16, R7.

use crate::attachment::Attached;
use crate::pg::Oid;
use crate::pg::trigger::{Column, Images};
use crate::pg::value::{Uuid, Value, until_transaction_end};
use crate::pg::xact::subtransaction_id;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// A link of the attachment: the numbers of its table and of itself there.
pub type LinkId = (usize, usize);
/// Values of some columns, as text.
type Texts<C> = (Vec<C>, Vec<String>);

/// What one subtransaction has added.
#[derive(Default)]
struct Level {
    subtransaction: u32,
    /// Tables with a statement that has begun and whose effects are half visible.
    marks: Vec<Oid>,
    /// What leads to profiles that are to be computed: values of a link's columns, by their images.
    touched: HashMap<(LinkId, Images), Vec<Value>>,
    /// Values of referenced profile columns, by columns, of rows this transaction deleted.
    deleted: HashSet<Texts<i16>>,
    /// Pending keys this transaction has inserted, by columns and values.
    named: HashSet<Texts<String>>,
    /// It made everything pending, and said that the document is defined anew.
    everything: bool,
    redefined: bool,
}

#[derive(Default)]
struct Session {
    /// From the outermost to the present subtransaction; those that added nothing are left out.
    levels: Vec<Level>,
    /// The attachment whose links are touched.
    attached: Option<Rc<Attached>>,
    /// Profiles computed in this transaction, and whether it has made more than those pending.
    computed: BTreeSet<Uuid>,
    many: bool,
    /// A statement of ours found nothing attached: what it changed is remembered nowhere.
    lost: bool,
    /// What was touched is being computed.
    settling: bool,
    /// Epochs have been assigned in this transaction.
    assigned: bool,
    /// It leaves work for the background worker, also where a part of it is rolled back; and when the first of the documents
    /// that it has stored expires.
    leaves_work: bool,
    expires_at: Option<i64>,
    /// Profiles whose stamp it has taken, for the worker to compute.
    left: Vec<Uuid>,
}

impl Session {
    /// The present subtransaction's level.
    fn level(&mut self) -> &mut Level {
        let subtransaction = subtransaction_id();
        if self.levels.last().map(|l| l.subtransaction) != Some(subtransaction) {
            self.levels.push(Level { subtransaction, ..Level::default() });
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn count(&self, of: fn(&Level) -> usize) -> usize {
        self.levels.iter().map(of).sum()
    }

    fn any(&self, is: impl FnMut(&Level) -> bool) -> bool {
        self.levels.iter().any(is)
    }
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
    with(|s| s.levels.retain(|l| l.subtransaction != id));
}

pub fn subtransaction_committed(id: u32, parent: u32) {
    with(|s| {
        if s.levels.last().map(|l| l.subtransaction) != Some(id) {
            return;
        }
        let Some(mut level) = s.levels.pop() else {
            return;
        };
        level.subtransaction = parent;
        match s.levels.last_mut() {
            Some(outer) if outer.subtransaction == parent => {
                outer.marks.append(&mut level.marks);
                outer.touched.extend(level.touched);
                outer.deleted.extend(level.deleted);
                outer.named.extend(level.named);
                outer.everything |= level.everything;
                outer.redefined |= level.redefined;
            }
            _ => s.levels.push(level),
        }
    });
}

/// A statement on `table` begins.
pub fn statement_started(table: Oid) {
    with(|s| s.level().marks.push(table));
}

/// The latest statement on `table` has ended.
pub fn statement_ended(table: Oid) {
    with(|s| {
        for level in s.levels.iter_mut().rev() {
            if let Some(at) = level.marks.iter().rposition(|t| *t == table) {
                level.marks.remove(at);
                break;
            }
        }
    });
}

/// Whether any statement on a used table is in flight.
pub fn in_flight() -> bool {
    with(|s| s.any(|l| !l.marks.is_empty())).unwrap_or(true)
}

/// Rows of `place` have changed: the profiles that these values of its `columns` (by their images) lead
/// to are to be computed before the transaction ends.
pub fn mark_dirty(place: LinkId, columns: &[Column], rows: HashMap<Images, Vec<Value>>) {
    if rows.is_empty() {
        return;
    }
    with(|s| {
        for (images, values) in rows {
            let what = (place, images);
            if !s.any(|l| l.touched.contains_key(&what)) {
                let values = until_transaction_end(|| Column::copy(columns, &values));
                s.level().touched.insert(what, values);
            }
        }
    });
}

/// Whether the links that this transaction has touched are those of `a`; where they are not, they mean
/// nothing any more.
pub fn touches_links_of(a: &Rc<Attached>) -> bool {
    with(|s| {
        let known = s.attached.get_or_insert_with(|| a.clone());
        known.follows_as(a)
    })
    .unwrap_or(false)
}

/// How many values have been touched.
pub fn dirty() -> usize {
    with(|s| s.count(|l| l.touched.len())).unwrap_or(usize::MAX)
}

/// The touched values by link. The transaction's end is near: they are forgotten.
pub fn take_dirty() -> Vec<(LinkId, Vec<Vec<Value>>)> {
    let touched = with(|s| {
        s.settling = true;
        s.lost = false;
        let mut by_place = BTreeMap::<LinkId, Vec<Vec<Value>>>::new();
        let levels = s.levels.iter_mut();
        for ((place, _), values) in levels.flat_map(|l| l.touched.drain()) {
            by_place.entry(place).or_default().push(values);
        }
        by_place.into_iter().collect()
    });
    touched.unwrap_or_default()
}

/// A trigger of ours has fired and there was nothing to say what is attached.
pub fn lose_sight() {
    with(|s| s.lost = true);
}

/// Whether that has happened in this transaction.
pub fn lost_sight() -> bool {
    with(|s| s.lost).unwrap_or(true)
}

/// Whether there is something to do before the transaction ends: a statement on a used table is half
/// visible, or what ended ones changed is not computed yet.
pub fn unsettled() -> bool {
    with(|s| s.lost || s.any(|l| !l.marks.is_empty() || !l.touched.is_empty())).unwrap_or(true)
}

/// Whether reads must be live. Also where something is pending: a cursor that was opened between the
/// change and its pending row sees the one and not the other.
pub fn must_read_live() -> bool {
    unsettled() || with(|s| s.many || s.settling).unwrap_or(true)
}

/// These profiles have been computed.
pub fn computed(keys: impl Iterator<Item = Uuid>) {
    with(|s| s.computed.extend(keys));
}

/// This transaction makes something pending: more profiles may have changed than are computed.
pub fn notify_all() {
    with(|s| s.many = true);
}

/// The profiles that may have changed; None for any of them.
pub fn changed() -> Option<BTreeSet<Uuid>> {
    with(|s| (!s.many).then(|| std::mem::take(&mut s.computed))).flatten()
}

/// This transaction leaves something to be refreshed.
pub fn leave_work() {
    with(|s| s.leaves_work = true);
}

/// It stores a document that expires then.
pub fn expires(at: i64) {
    with(|s| s.expires_at = Some(s.expires_at.map_or(at, |first| first.min(at))));
}

/// It has taken these profiles' stamps, and computes nothing.
pub fn leave_to_the_worker(keys: impl Iterator<Item = Uuid>) {
    with(|s| s.left.extend(keys));
}

/// What the transaction leaves to the worker.
#[derive(Default)]
pub struct Legacy {
    /// Something is pending.
    pub work: bool,
    /// When the first document expires that it has stored.
    pub expires_at: Option<i64>,
    /// Profiles whose stamp it has taken.
    pub changed: Vec<Uuid>,
}

pub fn for_the_worker() -> Legacy {
    let take = |s: &mut Session| Legacy {
        work: s.leaves_work,
        expires_at: s.expires_at,
        changed: std::mem::take(&mut s.left),
    };
    with(take).unwrap_or_default()
}

/// Records that this transaction deleted the profile whose `columns` held `values`.
pub fn record_deleted(columns: Vec<i16>, values: Vec<String>) {
    with(|s| {
        if s.count(|l| l.deleted.len()) < REMEMBERED {
            s.level().deleted.insert((columns, values));
        }
    });
}

pub fn was_deleted(columns: &[i16], values: &[String]) -> bool {
    with(|s| {
        let nothing = s.levels.iter().all(|l| l.deleted.is_empty());
        let deleted = || (columns.to_vec(), values.to_vec());
        !nothing && s.any(|l| l.deleted.contains(&deleted()))
    })
    .unwrap_or(false)
}

/// True the first time this transaction names a pending key.
pub fn name_key(columns: &[String], values: &[String]) -> bool {
    with(|s| {
        if keys_of(s) >= REMEMBERED {
            return true;
        }
        let key = (columns.to_vec(), values.to_vec());
        !s.any(|l| l.named.contains(&key)) && s.level().named.insert(key)
    })
    .unwrap_or(true)
}

fn keys_of(s: &Session) -> usize {
    s.count(|l| l.named.len())
}

/// How many pending keys this transaction has named.
pub fn keys_named() -> usize {
    with(|s| keys_of(s)).unwrap_or(0)
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

/// The pending keys are being deleted, those of this transaction included: it must insert them anew.
/// After a rollback of that, one is merely inserted twice.
pub fn forget_keys() {
    with(|s| s.levels.iter_mut().for_each(|l| l.named.clear()));
}

/// The same for every pending row.
pub fn forget_pending() {
    forget_keys();
    with(|s| {
        for level in &mut s.levels {
            (level.everything, level.redefined) = (false, false);
        }
    });
}

/// Whether this transaction has made everything pending: what it changes then is, too.
pub fn everything_is_pending() -> bool {
    with(|s| s.any(|l| l.everything)).unwrap_or(false)
}

/// True the first time this transaction says that the document is defined anew.
pub fn redefine() -> bool {
    with(|s| {
        let first = !s.any(|l| l.redefined);
        if first {
            s.level().redefined = true;
        }
        first
    })
    .unwrap_or(true)
}

/// True the first time this transaction makes everything pending.
pub fn distrust_everything() -> bool {
    with(|s| {
        let first = !s.any(|l| l.everything);
        if first {
            s.level().everything = true;
        }
        first
    })
    .unwrap_or(true)
}
