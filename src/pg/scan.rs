//! Reading without the executor: one row by a unique index, and what of our own tables each read looks at.
//!
//! Invariant: a read goes by the snapshot that it names, and takes the locks that the executor would,
//! those of SERIALIZABLE too. Whatever is opened is closed here, or by the abort.

use super::Oid;
use super::value::{self, Storage, Uuid, Value};
use pgrx::pg_sys::{self, Datum};

/// Where the current epoch and the pending ones stand.
#[derive(Clone, Copy, Debug)]
pub struct Epochs {
    /// A table of one row, and its column.
    pub table: Oid,
    pub current: i16,
    /// A table of one row or none, and its column: from which horizon on something may be pending.
    pub horizon: Oid,
    pub from: i16,
    /// A small table, its index on the horizon, and its column that is null until the epoch has a number.
    pub pending: Oid,
    pub index: Oid,
    pub number: i16,
}

/// What the active snapshot shows of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub current: Option<i64>,
    /// There is a pending epoch.
    pub pending: bool,
    /// There is one without a number: no stamp is beyond it.
    pub unnumbered: bool,
}

impl Epochs {
    /// In the active snapshot.
    pub fn look(&self) -> Look {
        const FEW: i32 = 10;
        let (mut rows, mut unnumbered) = (0, false);
        let mut enough = |number: Option<i64>| {
            rows += 1;
            unnumbered = number.is_none();
            unnumbered || rows == FEW
        };
        // SAFETY: a backend variable; the calling query has an active snapshot. The relation is open and
        // locked during the look.
        unsafe {
            let snapshot = pg_sys::GetActiveSnapshot();
            let relation = pg_sys::try_table_open(self.pending, pg_sys::AccessShareLock as i32);
            if !relation.is_null() {
                match Size::of(relation) {
                    Size::Nothing => {}
                    Size::Pages => match usable(self.index) {
                        Some(index) => {
                            walk(relation, index, snapshot, self.horizon_in(snapshot), |row| {
                                enough(row.int8(self.number))
                            });
                            pg_sys::index_close(index, pg_sys::NoLock as i32);
                        }
                        None => {
                            enough(None);
                        }
                    },
                    Size::Page => scan(self.pending, snapshot, |row| enough(row.int8(self.number))),
                }
                pg_sys::table_close(relation, pg_sys::NoLock as i32);
            }
            Look { current: self.current_in(snapshot), pending: rows > 0, unnumbered }
        }
    }

    /// The current epoch in the active snapshot.
    pub fn current(&self) -> Option<i64> {
        // SAFETY: as above.
        self.current_in(unsafe { pg_sys::GetActiveSnapshot() })
    }

    /// The latest committed one, whatever the isolation level.
    pub fn latest(&self) -> Option<i64> {
        // SAFETY: a static snapshot, registered while it is used; on an error the abort forgets it.
        unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            let found = self.current_in(snapshot);
            pg_sys::UnregisterSnapshot(snapshot);
            found
        }
    }

    fn current_in(&self, snapshot: pg_sys::Snapshot) -> Option<i64> {
        let mut found = None;
        scan(self.table, snapshot, |row| {
            found = row.int8(self.current);
            true
        });
        found
    }

    /// From which horizon on something may be pending.
    fn horizon_in(&self, snapshot: pg_sys::Snapshot) -> i64 {
        let mut found = None;
        scan(self.horizon, snapshot, |row| {
            found = row.int8(self.from);
            true
        });
        found.unwrap_or(0)
    }
}

/// How a small table is best read: it keeps the size that it once had.
enum Size {
    Nothing,
    /// One page is read faster than an index; and so is all of it at SERIALIZABLE, where locks on the pages of
    /// an index would be in the way of every row.
    Page,
    Pages,
}

impl Size {
    /// # Safety
    /// `relation` is open.
    unsafe fn of(relation: pg_sys::Relation) -> Size {
        // SAFETY: as said; a backend variable.
        unsafe {
            if pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 {
                return Size::Page;
            }
            match pg_sys::RelationGetNumberOfBlocksInFork(
                relation,
                pg_sys::ForkNumber::MAIN_FORKNUM,
            ) {
                0 => Size::Nothing,
                1 => Size::Page,
                _ => Size::Pages,
            }
        }
    }
}

/// Hands the rows of a table that have at least `from` in an index's column, in its order, to `enough` until it says so.
///
/// # Safety
/// `relation` and `index` are the table and its index, open and locked; the index is on one column, a bigint.
unsafe fn walk(
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    from: i64,
    mut enough: impl FnMut(&Row) -> bool,
) {
    // SAFETY: as said; the slot is dropped here, or by the abort.
    unsafe {
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        #[cfg(not(feature = "pg18"))]
        let scan = pg_sys::index_beginscan(relation, index, snapshot, 1, 0);
        #[cfg(feature = "pg18")]
        let scan = pg_sys::index_beginscan(relation, index, snapshot, std::ptr::null_mut(), 1, 0);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            1,
            pg_sys::BTGreaterEqualStrategyNumber as u16,
            pg_sys::F_INT8GE.into(),
            Datum::from(from),
        );
        pg_sys::index_rescan(scan, &mut key, 1, std::ptr::null_mut(), 0);
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        while pg_sys::index_getnext_slot(scan, forward, slot) {
            if enough(&Row { slot }) {
                break;
            }
        }
        pg_sys::index_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
    }
}

/// A row of a heap scan.
struct Scanned {
    tuple: pg_sys::HeapTuple,
    desc: pg_sys::TupleDesc,
}

impl Scanned {
    fn int8(&self, column: i16) -> Option<i64> {
        let mut null = false;
        // SAFETY: the tuple is of the table that the descriptor describes, and alive.
        let datum =
            unsafe { pg_sys::heap_getattr(self.tuple, i32::from(column), self.desc, &mut null) };
        (!null).then_some(datum.value() as i64)
    }
}

/// Hands the rows of a table to `enough` until it says so. Nothing where the table is gone.
fn scan(table: Oid, snapshot: pg_sys::Snapshot, mut enough: impl FnMut(&Scanned) -> bool) {
    // SAFETY: the relation is open and locked during the scan; a tuple lives until the next is
    // fetched; the snapshot is active or registered.
    unsafe {
        let relation = pg_sys::try_table_open(table, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return;
        }
        let flags = pg_sys::ScanOptions::SO_TYPE_SEQSCAN
            | pg_sys::ScanOptions::SO_ALLOW_STRAT
            | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
        let none = std::ptr::null_mut();
        let scan = pg_sys::heap_beginscan(relation, snapshot, 0, none, std::ptr::null_mut(), flags);
        let desc = (*relation).rd_att;
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() || enough(&Scanned { tuple, desc }) {
                break;
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
    }
}

/// How a pending key names a profile: by which columns, and by which values of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash {
    pub set: i64,
    pub hash: i64,
}

/// A hash of texts that is the same on every machine and in every version, since pending keys are
/// dumped and restored (FNV-1a, 64 bits); never 0.
pub fn hash<S: AsRef<str>>(texts: &[S]) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for text in texts {
        text.as_ref().bytes().for_each(&mut add);
        add(0);
    }
    if hash == 0 { 1 } else { hash as i64 }
}

/// The pending keys: their table, its index on set and hash, and these two columns.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    pub table: Oid,
    pub index: Oid,
    pub set: i16,
    pub hash: i16,
}

impl Keys {
    /// Whether the active snapshot shows one of these keys; or one of other columns than `sets` (in
    /// order), of which there is no telling whom it names.
    pub fn any(&self, sets: &[i64], names: impl FnOnce() -> Vec<KeyHash>) -> bool {
        // SAFETY: the relation is open and locked during the look; a backend variable; the calling query
        // has an active snapshot.
        unsafe {
            let relation = pg_sys::try_table_open(self.table, pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                return true;
            }
            let snapshot = pg_sys::GetActiveSnapshot();
            // One page is read faster than an index. At SERIALIZABLE even an empty table is asked, since what may come
            // is a conflict.
            let serializable = pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32;
            let blocks =
                pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            let found = match blocks {
                0 if !serializable => false,
                0 | 1 => {
                    let (mut names, mut names_of, mut found) = (None, Some(names), false);
                    scan(self.table, snapshot, |row| {
                        let names = names.get_or_insert_with(|| {
                            names_of.take().map(|f| f()).unwrap_or_default()
                        });
                        let key = row.int8(self.set).zip(row.int8(self.hash));
                        found = key.is_none_or(|(set, hash)| {
                            !sets.contains(&set) || names.contains(&KeyHash { set, hash })
                        });
                        found
                    });
                    found
                }
                _ => match usable(self.index) {
                    Some(index) => {
                        let found = self.probe(relation, index, snapshot, sets, &names());
                        pg_sys::index_close(index, pg_sys::NoLock as i32);
                        found
                    }
                    // It is being built anew, and what this session knows of it is old.
                    None => true,
                },
            };
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            found
        }
    }

    /// The same by the index: each name, and each gap between the sets.
    ///
    /// # Safety
    /// `relation` and `index` are the table and its index, open and locked.
    unsafe fn probe(
        &self,
        relation: pg_sys::Relation,
        index: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        sets: &[i64],
        names: &[KeyHash],
    ) -> bool {
        type Condition = (i16, u32, u32, i64);
        let equal = |column, value| -> Condition {
            (column, pg_sys::BTEqualStrategyNumber, pg_sys::F_INT8EQ, value)
        };
        let above =
            |value| -> Condition { (1, pg_sys::BTGreaterStrategyNumber, pg_sys::F_INT8GT, value) };
        let below =
            |value| -> Condition { (1, pg_sys::BTLessStrategyNumber, pg_sys::F_INT8LT, value) };
        let gaps = (0..=sets.len()).map(|i| {
            let from = i.checked_sub(1).and_then(|i| sets.get(i)).map(|s| above(*s));
            let to = sets.get(i).map(|s| below(*s));
            from.or(to).zip(to.or(from))
        });
        let names = names.iter().map(|name| Some((equal(1, name.set), equal(2, name.hash))));
        // SAFETY: index and slot are open during the scan; the keys are of the index's two columns.
        unsafe {
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(relation, index, snapshot, 2, 0);
            #[cfg(feature = "pg18")]
            let scan =
                pg_sys::index_beginscan(relation, index, snapshot, std::ptr::null_mut(), 2, 0);
            let found = names.chain(gaps).flatten().any(|(first, second)| {
                let mut keys = [pg_sys::ScanKeyData::default(); 2];
                for (key, (column, strategy, function, value)) in
                    keys.iter_mut().zip([first, second])
                {
                    pg_sys::ScanKeyInit(
                        key,
                        column,
                        strategy as u16,
                        function.into(),
                        Datum::from(value),
                    );
                }
                pg_sys::index_rescan(scan, keys.as_mut_ptr(), 2, std::ptr::null_mut(), 0);
                pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot)
            });
            pg_sys::index_endscan(scan);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            found
        }
    }
}

/// An index, open and locked, if it is there and valid: since it was last looked for it may have been built anew
/// beside. Its table is locked, so it stays.
///
/// # Safety
/// The caller closes it.
unsafe fn usable(index: Oid) -> Option<pg_sys::Relation> {
    // SAFETY: as said; with the table locked nobody drops an index of it any more.
    unsafe {
        if pg_sys::get_rel_relkind(index) != pg_sys::RELKIND_INDEX as std::ffi::c_char {
            return None;
        }
        let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        if !(*(*relation).rd_index).indisvalid {
            pg_sys::index_close(relation, pg_sys::NoLock as i32);
            return None;
        }
        Some(relation)
    }
}

/// A unique btree index on one column of a plain built-in type: immediate, valid, total, and fit for
/// every snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    index: Oid,
    /// The type's equality.
    equals: u32,
}

impl Probe {
    /// None for a type that needs more than an equality (a collation, a typmod).
    pub fn new(index: Oid, oid: Oid) -> Option<Probe> {
        let equals = match oid {
            pg_sys::UUIDOID => pg_sys::F_UUID_EQ,
            pg_sys::INT8OID => pg_sys::F_INT8EQ,
            pg_sys::INT4OID => pg_sys::F_INT4EQ,
            _ => return None,
        };
        Some(Probe { index, equals })
    }

    /// The row of `table` whose column has this value in the active snapshot: what `read` makes of it,
    /// if there is one. None where the table or the index has just been dropped.
    pub fn find<R>(
        &self,
        table: Oid,
        value: Datum,
        read: impl FnOnce(&Row) -> R,
    ) -> Option<Option<R>> {
        // SAFETY: as above; `value` is of the column's type.
        unsafe {
            let relation = pg_sys::try_table_open(table, pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                return None;
            }
            let Some(index) = usable(self.index) else {
                pg_sys::table_close(relation, pg_sys::NoLock as i32);
                return None;
            };
            let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            let mut condition = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyInit(
                &mut condition,
                1,
                pg_sys::BTEqualStrategyNumber as u16,
                self.equals.into(),
                value,
            );
            let snapshot = pg_sys::GetActiveSnapshot();
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(relation, index, snapshot, 1, 0);
            #[cfg(feature = "pg18")]
            let scan =
                pg_sys::index_beginscan(relation, index, snapshot, std::ptr::null_mut(), 1, 0);
            pg_sys::index_rescan(scan, &mut condition, 1, std::ptr::null_mut(), 0);
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            let found =
                pg_sys::index_getnext_slot(scan, forward, slot).then(|| read(&Row { slot }));
            pg_sys::index_endscan(scan);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            Some(found)
        }
    }
}

/// A row while it is read.
pub struct Row {
    pub(super) slot: *mut pg_sys::TupleTableSlot,
}

impl Row {
    fn get(&self, column: i16) -> Option<Datum> {
        let mut null = false;
        // SAFETY: the slot holds a row of a table that has this column.
        let datum = unsafe { pg_sys::slot_getattr(self.slot, i32::from(column), &mut null) };
        (!null).then_some(datum)
    }

    pub fn tid(&self) -> pg_sys::ItemPointerData {
        // SAFETY: as above.
        unsafe { (*self.slot).tts_tid }
    }

    pub fn uuid(&self, column: i16) -> Option<Uuid> {
        self.get(column).map(value::uuid)
    }

    /// The transaction that made this version.
    pub fn xmin(&self) -> u32 {
        let mut null = false;
        // SAFETY: as above; a heap's slot knows its tuple's header.
        let datum = unsafe {
            pg_sys::slot_getsysattr(self.slot, pg_sys::MinTransactionIdAttributeNumber, &mut null)
        };
        datum.value() as u32
    }

    /// The column's text, if it has a value; `oid` is its type.
    pub fn text(&self, column: i16, oid: Oid) -> Option<String> {
        let datum = self.get(column)?;
        Some(Value { datum, oid }.to_text())
    }

    /// Whether the column holds this value, to the last bit.
    pub fn holds(&self, column: i16, value: &Value) -> bool {
        let storage = Storage::of(value.oid);
        storage.same_image(self.get(column), Some(value.datum))
    }

    /// A bigint, or a timestamptz in microseconds.
    pub fn int8(&self, column: i16) -> Option<i64> {
        self.get(column).map(|d| d.value() as i64)
    }

    /// A copy of a jsonb as it is stored, in the current memory context.
    pub fn jsonb(&self, column: i16) -> Option<Value> {
        let datum = self.get(column)?;
        Some(Value { datum: Storage::of(pg_sys::JSONBOID).copy(datum), oid: pg_sys::JSONBOID })
    }
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn a_hash_is_of_each_text_by_itself() {
        assert_ne!(hash(&["a", "b"]), hash(&["ab", ""]));
        assert_ne!(hash(&["a", "b"]), hash(&["b", "a"]));
        assert_ne!(hash::<&str>(&[]), 0);
        // What a dump holds: it may never become another.
        assert_eq!(hash(&["1"]), 574422290842409524);
    }
}
