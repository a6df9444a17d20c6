//! Reading without the executor: one row by a unique index, and a table that is nearly always one row.
//!
//! Invariant: a read goes by the snapshot that it names, and takes the locks that the executor would.
//! Whatever is opened is closed here, or by the abort.

use super::Oid;
use super::value::{self, Storage, Uuid, Value};
use pgrx::pg_sys::{self, Datum};

/// Where the current epoch stands: `profile_cache.pending`, and its columns `kind` and `epoch`.
#[derive(Clone, Copy, Debug)]
pub struct Epochs {
    pub table: Oid,
    pub kind: i16,
    pub epoch: i16,
}

/// Which rows of it a look concerns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The current epoch in the active snapshot, and only if nothing is pending there.
    Alone,
    /// The current epoch in the active snapshot.
    Active,
    /// The latest committed one.
    Latest,
}

impl Epochs {
    pub fn current(&self, look: Look) -> Option<i64> {
        // SAFETY: the relation is open and locked during the scan; a tuple lives until the next is
        // fetched; a snapshot that is not the active one is registered meanwhile.
        unsafe {
            let relation = pg_sys::try_table_open(self.table, pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                return None;
            }
            let snapshot = match look {
                Look::Latest => pg_sys::GetLatestSnapshot(),
                _ => pg_sys::GetActiveSnapshot(),
            };
            let snapshot = pg_sys::RegisterSnapshot(snapshot);
            let flags = pg_sys::ScanOptions::SO_TYPE_SEQSCAN
                | pg_sys::ScanOptions::SO_ALLOW_STRAT
                | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
            let none = std::ptr::null_mut();
            let scan =
                pg_sys::heap_beginscan(relation, snapshot, 0, none, std::ptr::null_mut(), flags);
            let next = || pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            let get = |tuple, column: i16| {
                let mut null = false;
                let desc = (*relation).rd_att;
                let datum = pg_sys::heap_getattr(tuple, i32::from(column), desc, &mut null);
                (!null).then_some(datum)
            };
            let mut found = None;
            let mut tuple = next();
            while !tuple.is_null() {
                let is = value::from::<&str>(get(tuple, self.kind)) == Some("current");
                if is {
                    found = get(tuple, self.epoch).map(|d| d.value() as i64);
                }
                if is != (look == Look::Alone) {
                    break;
                }
                tuple = next();
            }
            if look == Look::Alone && !tuple.is_null() {
                found = None;
            }
            pg_sys::heap_endscan(scan);
            pg_sys::UnregisterSnapshot(snapshot);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            found
        }
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
            // With the table locked nobody drops an index of it any more.
            if pg_sys::get_rel_relkind(self.index) != pg_sys::RELKIND_INDEX as std::ffi::c_char {
                pg_sys::table_close(relation, pg_sys::NoLock as i32);
                return None;
            }
            let index = pg_sys::index_open(self.index, pg_sys::AccessShareLock as i32);
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
        Some(Value {
            datum: Storage::of(pg_sys::JSONBOID).copy(datum),
            oid: pg_sys::JSONBOID,
        })
    }
}
