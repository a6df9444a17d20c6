//! Reading without the executor: one row by a unique index, and a table that is nearly always one row.
//!
//! Invariant: both read in the active snapshot, that of the query that called us, and take the locks
//! that the executor would. Whatever is opened is closed here, or by the abort.

use super::Oid;
use super::value::{self, Storage, Uuid, Value};
use pgrx::pg_sys::{self, Datum};

/// The bigint in column `value` of the only row of a table that the active snapshot shows, if its text
/// in column `kind` is `wanted`; None where that is not so, or there are several rows.
pub fn only_row(table: Oid, kind: i16, wanted: &str, value: i16) -> Option<i64> {
    // SAFETY: the relation is open and locked during the scan; a tuple lives until the next is fetched.
    unsafe {
        let relation = pg_sys::try_table_open(table, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return None;
        }
        let flags = pg_sys::ScanOptions::SO_TYPE_SEQSCAN
            | pg_sys::ScanOptions::SO_ALLOW_STRAT
            | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
        let scan = pg_sys::heap_beginscan(
            relation,
            pg_sys::GetActiveSnapshot(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            flags,
        );
        let next = || pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
        let get = |tuple, column: i16| {
            let mut null = false;
            let desc = (*relation).rd_att;
            let datum = pg_sys::heap_getattr(tuple, i32::from(column), desc, &mut null);
            (!null).then_some(datum)
        };
        let first = next();
        let mut found = None;
        if !first.is_null() {
            let is = value::from::<String>(get(first, kind)).is_some_and(|k| k == wanted);
            found = get(first, value).map(|d| d.value() as i64).filter(|_| is);
            if !next().is_null() {
                found = None;
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        found
    }
}

/// The row of `table` whose uuid, in the one column of the unique index `index`, is `key`: what `read`
/// makes of it, if there is one. None where the table or the index has just been dropped.
pub fn by_key<R>(
    table: Oid,
    index: Oid,
    key: &Uuid,
    read: impl FnOnce(&Row) -> R,
) -> Option<Option<R>> {
    let key = Value::uuid(key);
    // SAFETY: as above. The index is a btree on one uuid column, immediate, valid and total.
    unsafe {
        let relation = pg_sys::try_table_open(table, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return None;
        }
        // With the table locked nobody drops an index of it any more.
        if pg_sys::get_rel_relkind(index) != pg_sys::RELKIND_INDEX as std::ffi::c_char {
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            return None;
        }
        let index = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let mut condition = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut condition,
            1,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_UUID_EQ.into(),
            key.datum,
        );
        let snapshot = pg_sys::GetActiveSnapshot();
        #[cfg(not(feature = "pg18"))]
        let scan = pg_sys::index_beginscan(relation, index, snapshot, 1, 0);
        #[cfg(feature = "pg18")]
        let scan = pg_sys::index_beginscan(relation, index, snapshot, std::ptr::null_mut(), 1, 0);
        pg_sys::index_rescan(scan, &mut condition, 1, std::ptr::null_mut(), 0);
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        let found = pg_sys::index_getnext_slot(scan, forward, slot).then(|| read(&Row { slot }));
        pg_sys::index_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::index_close(index, pg_sys::NoLock as i32);
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        Some(found)
    }
}

/// A row while it is read.
pub struct Row {
    slot: *mut pg_sys::TupleTableSlot,
}

impl Row {
    fn get(&self, column: i16) -> Option<Datum> {
        let mut null = false;
        // SAFETY: the slot holds a row of a table that has this column.
        let datum = unsafe { pg_sys::slot_getattr(self.slot, i32::from(column), &mut null) };
        (!null).then_some(datum)
    }

    /// A bigint, or a timestamptz in microseconds.
    pub fn int8(&self, column: i16) -> Option<i64> {
        self.get(column).map(|d| d.value() as i64)
    }

    /// A copy of a jsonb as it is stored, in the current memory context.
    pub fn jsonb(&self, column: i16) -> Option<Value> {
        let datum = self.get(column)?;
        Some(Value {
            datum: Storage::of(pg_sys::JSONBOID).copy(datum),
            oid: pg_sys::JSONBOID,
        })
    }
}
