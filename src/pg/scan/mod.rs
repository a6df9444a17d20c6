//! Reading without the executor: one row by a unique index, those of one value by any (`rows`), and what of our own
//! tables each read looks at (`epochs`, `keys`).
//!
//! Invariant: a read goes by the snapshot that it names, and takes the locks that the executor would,
//! those of SERIALIZABLE too. Whatever is opened is closed here, or by the abort.

mod epochs;
mod keys;
mod rows;

pub use epochs::{Epochs, LinkColumns, Progress};
pub use keys::{KeyHash, Keys, hash};
pub use rows::RowsLookup;

use super::Oid;
use super::value::{self, TypeLayout, Uuid, Value};
use pgrx::pg_sys::{self, Datum};

/// Begins a scan by an index with so many conditions.
///
/// # Safety
/// `relation` and `index` are the table and its index, open and locked; the caller ends it, or the abort.
unsafe fn begin(
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    conditions: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: as said.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
        return pg_sys::index_beginscan(relation, index, snapshot, conditions, 0);
        #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
        pg_sys::index_beginscan(relation, index, snapshot, std::ptr::null_mut(), conditions, 0)
    }
}

/// Hands the rows of a table that fulfil a condition on its index's first column to `enough`, in the index's order, until it
/// says so.
///
/// # Safety
/// `relation` and `index` are the table and its index, open and locked; the condition is of the column's type.
unsafe fn by_index(
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    condition: &mut pg_sys::ScanKeyData,
    mut enough: impl FnMut(&HeapRow) -> bool,
) {
    // SAFETY: as said; the slot is dropped here, or by the abort.
    unsafe {
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let scan = begin(relation, index, snapshot, 1);
        pg_sys::index_rescan(scan, condition, 1, std::ptr::null_mut(), 0);
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        while pg_sys::index_getnext_slot(scan, forward, slot) {
            if enough(&HeapRow { slot }) {
                break;
            }
        }
        pg_sys::index_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
    }
}

/// A row while it is looked at, by its columns' numbers.
pub trait Columns {
    fn get(&self, column: i16) -> Option<Datum>;

    /// A bigint, or a timestamptz in microseconds.
    fn int8(&self, column: i16) -> Option<i64> {
        self.get(column).map(|d| d.value() as i64)
    }

    fn uuid(&self, column: i16) -> Option<Uuid> {
        self.get(column).map(value::uuid)
    }

    /// The column's text, if it has a value; `oid` is its type.
    fn text(&self, column: i16, oid: Oid) -> Option<String> {
        Some(Value { datum: self.get(column)?, oid }.to_text())
    }

    /// The texts of an array of `element` that takes at most so many bytes; none where one is null.
    fn texts(&self, column: i16, element: Oid, most: usize) -> Option<Vec<String>> {
        let datum = self.get(column)?;
        // SAFETY: the column is an array, and so a varlena, whose size is looked at before it is read.
        if unsafe { pg_sys::toast_raw_datum_size(datum) } > most {
            return None;
        }
        Value { datum, oid: Oid::INVALID }.elements(element)?.into_iter().collect()
    }
}

/// How many columns a table of ours has at the most.
const WIDEST: usize = 32;

/// A row of a heap scan: its columns all at once, which takes one call of the server's.
struct Scanned {
    values: [Datum; WIDEST],
    nulls: [bool; WIDEST],
}

impl Columns for Scanned {
    fn get(&self, column: i16) -> Option<Datum> {
        let at = usize::try_from(column).ok()?.checked_sub(1)?;
        self.values.get(at).copied().filter(|_| self.nulls.get(at) == Some(&false))
    }
}

/// Hands the rows of a table to `enough` until it says so. Nothing where the table is gone.
fn scan(table: Oid, snapshot: pg_sys::Snapshot, enough: impl FnMut(&Scanned) -> bool) {
    // SAFETY: opened, locked and closed here.
    unsafe {
        let relation = pg_sys::try_table_open(table, pg_sys::AccessShareLock as i32);
        if !relation.is_null() {
            scan_opened(relation, snapshot, enough);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
        }
    }
}

/// The same of an open one.
///
/// # Safety
/// `relation` is open and locked.
unsafe fn scan_opened(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    mut enough: impl FnMut(&Scanned) -> bool,
) {
    // SAFETY: as said; a tuple lives until the next is fetched; the snapshot is active or registered. A table with more columns
    // than there is place for is none of ours: its rows have none.
    unsafe {
        let flags = pg_sys::ScanOptions::SO_TYPE_SEQSCAN
            | pg_sys::ScanOptions::SO_ALLOW_STRAT
            | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
        let none = std::ptr::null_mut();
        let scan = pg_sys::heap_beginscan(relation, snapshot, 0, none, std::ptr::null_mut(), flags);
        let desc = (*relation).rd_att;
        let fits = usize::try_from((*desc).natts).is_ok_and(|n| n <= WIDEST);
        let mut row = Scanned { values: [Datum::null(); WIDEST], nulls: [true; WIDEST] };
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            if fits {
                let (values, nulls) = (row.values.as_mut_ptr(), row.nulls.as_mut_ptr());
                pg_sys::heap_deform_tuple(tuple, desc, values, nulls);
            }
            if enough(&row) {
                break;
            }
        }
        pg_sys::heap_endscan(scan);
    }
}

/// An index, open and locked, if it is there and valid: since it was last looked for it may have been built anew
/// beside. Its table is locked, so it stays.
///
/// # Safety
/// The caller closes it, and has it locked where `lock` is none.
unsafe fn usable(index: Oid, lock: u32) -> Option<pg_sys::Relation> {
    // SAFETY: as said; with the table locked nobody drops an index of it any more.
    unsafe {
        if pg_sys::get_rel_relkind(index) != pg_sys::RELKIND_INDEX as std::ffi::c_char {
            return None;
        }
        let relation = pg_sys::index_open(index, lock as i32);
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
pub struct UniqueIndexLookup {
    index: Oid,
    /// The type's equality.
    equals: u32,
}

impl UniqueIndexLookup {
    /// None for a type that needs more than an equality (a collation, a typmod).
    pub fn new(index: Oid, oid: Oid) -> Option<UniqueIndexLookup> {
        let equals = match oid {
            pg_sys::UUIDOID => pg_sys::F_UUID_EQ,
            pg_sys::INT8OID => pg_sys::F_INT8EQ,
            pg_sys::INT4OID => pg_sys::F_INT4EQ,
            _ => return None,
        };
        Some(UniqueIndexLookup { index, equals })
    }

    /// The row of `table` whose column has this value in the active snapshot: what `read` makes of it,
    /// if there is one. None where the table or the index has just been dropped.
    pub fn find<R>(
        &self,
        table: Oid,
        value: Datum,
        read: impl FnOnce(&HeapRow) -> R,
    ) -> Option<Option<R>> {
        // SAFETY: as above; `value` is of the column's type.
        unsafe {
            let relation = pg_sys::try_table_open(table, pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                return None;
            }
            let Some(index) = usable(self.index, pg_sys::AccessShareLock) else {
                pg_sys::table_close(relation, pg_sys::NoLock as i32);
                return None;
            };
            let mut condition = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyInit(
                &mut condition,
                1,
                pg_sys::BTEqualStrategyNumber as u16,
                self.equals.into(),
                value,
            );
            let snapshot = pg_sys::GetActiveSnapshot();
            let (mut read, mut found) = (Some(read), None);
            by_index(relation, index, snapshot, &mut condition, |row| {
                found = read.take().map(|read| read(row));
                true
            });
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            Some(found)
        }
    }
}

/// A row while it is read.
pub struct HeapRow {
    pub(in crate::pg) slot: *mut pg_sys::TupleTableSlot,
}

impl Columns for HeapRow {
    fn get(&self, column: i16) -> Option<Datum> {
        let mut null = false;
        // SAFETY: the slot holds a row of a table that has this column.
        let datum = unsafe { pg_sys::slot_getattr(self.slot, i32::from(column), &mut null) };
        (!null).then_some(datum)
    }
}

impl HeapRow {
    pub fn tid(&self) -> pg_sys::ItemPointerData {
        // SAFETY: as above.
        unsafe { (*self.slot).tts_tid }
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

    /// Whether the column holds this value, to the last bit.
    pub fn holds(&self, column: i16, value: &Value) -> bool {
        let storage = TypeLayout::of(value.oid);
        storage.same_image(self.get(column), Some(value.datum))
    }

    /// A copy of the column's value, in the current memory context; `oid` is its type.
    pub fn value(&self, column: i16, oid: Oid) -> Option<Value> {
        let datum = self.get(column)?;
        let by_value = matches!(oid, pg_sys::INT8OID | pg_sys::INT4OID | pg_sys::INT2OID);
        let datum = if by_value { datum } else { TypeLayout::of(oid).copy(datum) };
        Some(Value { datum, oid })
    }

    /// A copy of a jsonb as it is stored, in the current memory context.
    pub fn jsonb(&self, column: i16) -> Option<Value> {
        let datum = self.get(column)?;
        Some(Value { datum: TypeLayout::of(pg_sys::JSONBOID).copy(datum), oid: pg_sys::JSONBOID })
    }
}
