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

/// What a snapshot shows of it, as far as a read looks by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing but the current epoch.
    Settled(i64),
    /// A pending epoch without a number: no stamp is beyond it.
    Unnumbered,
    Other,
}

impl Epochs {
    /// In the active snapshot.
    pub fn state(&self) -> State {
        const FEW: i32 = 10;
        let (mut rows, mut state) = (0, State::Other);
        // SAFETY: a backend variable; the calling query has an active snapshot.
        let snapshot = unsafe { pg_sys::GetActiveSnapshot() };
        self.scan(snapshot, |kind, epoch| {
            rows += 1;
            state = match (kind, epoch) {
                ("current", Some(epoch)) if rows == 1 => State::Settled(epoch),
                ("epoch", None) => State::Unnumbered,
                _ => State::Other,
            };
            state == State::Unnumbered || rows == FEW
        });
        state
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
        self.scan(snapshot, |kind, epoch| {
            found = epoch.filter(|_| kind == "current");
            kind == "current"
        });
        found
    }

    /// Hands kind and epoch of rows to `enough` until it says so.
    fn scan(&self, snapshot: pg_sys::Snapshot, mut enough: impl FnMut(&str, Option<i64>) -> bool) {
        // SAFETY: the relation is open and locked during the scan; a tuple lives until the next is
        // fetched; the snapshot is active or registered.
        unsafe {
            let relation = pg_sys::try_table_open(self.table, pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                return;
            }
            let flags = pg_sys::ScanOptions::SO_TYPE_SEQSCAN
                | pg_sys::ScanOptions::SO_ALLOW_STRAT
                | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
            let none = std::ptr::null_mut();
            let scan =
                pg_sys::heap_beginscan(relation, snapshot, 0, none, std::ptr::null_mut(), flags);
            let desc = (*relation).rd_att;
            loop {
                let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if tuple.is_null() {
                    break;
                }
                let get = |column: i16| {
                    let mut null = false;
                    let datum = pg_sys::heap_getattr(tuple, i32::from(column), desc, &mut null);
                    (!null).then_some(datum)
                };
                let kind = value::from::<&str>(get(self.kind)).unwrap_or_default();
                if enough(kind, get(self.epoch).map(|d| d.value() as i64)) {
                    break;
                }
            }
            pg_sys::heap_endscan(scan);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
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
            // Since the attachment was loaded it may have been marked for a concurrent drop.
            if !(*(*index).rd_index).indisvalid {
                pg_sys::index_close(index, pg_sys::NoLock as i32);
                pg_sys::table_close(relation, pg_sys::NoLock as i32);
                return None;
            }
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
