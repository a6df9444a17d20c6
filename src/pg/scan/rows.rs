//! The rows of a table that have one value in a column, by an index.
//!
//! Invariant: where the index cannot be used, or there are more rows than asked for, that is said, and never taken for
//! "no more rows".

use super::{HeapRow, by_index, usable};
use crate::pg::value::Value;
use crate::pg::{Oid, locks};
use pgrx::pg_sys;
use std::ops::ControlFlow;

/// A btree index, valid and total, whose first column is of a plain built-in type and goes by the
/// type's own operator class.
#[derive(Clone, Copy, Debug)]
pub struct RowsLookup {
    table: Oid,
    index: Oid,
    /// The type's equality.
    equals: u32,
}

impl RowsLookup {
    /// None for a type of which more would have to be known. `oid`: the column's type, under a domain.
    pub fn new(table: Oid, index: Oid, oid: Oid) -> Option<RowsLookup> {
        let equals = match oid {
            pg_sys::UUIDOID => pg_sys::F_UUID_EQ,
            pg_sys::INT8OID => pg_sys::F_INT8EQ,
            pg_sys::INT4OID => pg_sys::F_INT4EQ,
            pg_sys::INT2OID => pg_sys::F_INT2EQ,
            pg_sys::TEXTOID | pg_sys::VARCHAROID => pg_sys::F_TEXTEQ,
            _ => return None,
        };
        Some(RowsLookup { table, index, equals })
    }

    pub fn index(&self) -> Oid {
        self.index
    }

    /// Locks the table and the index for reading, if that is to be had at once.
    pub fn lock(&self) -> bool {
        [self.table, self.index].into_iter().all(locks::try_lock_for_reading)
    }

    /// Hands the rows that have this value in the active snapshot to `each`, until it says that it is enough. None where
    /// the index is not there or not for this snapshot: then nothing is known of them. Both are [locked](Self::lock).
    pub fn find(
        &self,
        value: &Value,
        mut each: impl FnMut(&HeapRow) -> ControlFlow<()>,
    ) -> Option<()> {
        // SAFETY: the table is locked, and open with its index during the scan; what is opened is closed here, or by
        // the abort; the key is of the index's first column and of its collation.
        unsafe {
            let relation = pg_sys::try_table_open(self.table, pg_sys::NoLock as i32);
            if relation.is_null() {
                return None;
            }
            let index = usable(self.index, pg_sys::NoLock).filter(|index| {
                let fits = fits_snapshots(*index);
                if !fits {
                    pg_sys::index_close(*index, pg_sys::NoLock as i32);
                }
                fits
            });
            let Some(index) = index else {
                pg_sys::table_close(relation, pg_sys::NoLock as i32);
                return None;
            };
            let mut condition = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyEntryInitialize(
                &mut condition,
                0,
                1,
                pg_sys::BTEqualStrategyNumber as u16,
                Oid::INVALID,
                *(*index).rd_indcollation,
                self.equals.into(),
                value.datum,
            );
            let snapshot = pg_sys::GetActiveSnapshot();
            by_index(relation, index, snapshot, &mut condition, |row| each(row).is_break());
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            Some(())
        }
    }
}

/// Whether an index finds what this transaction's snapshots show: one that was built over row versions which older
/// snapshots see otherwise does so once these are gone (as the planner decides, in plancat.c).
///
/// # Safety
/// `index` is open.
unsafe fn fits_snapshots(index: pg_sys::Relation) -> bool {
    // SAFETY: as said; the relcache entry holds the index's row of pg_index; a backend variable.
    unsafe {
        if !(*(*index).rd_index).indcheckxmin {
            return true;
        }
        let row = (*(*index).rd_indextuple).t_data;
        let frozen = (pg_sys::HEAP_XMIN_COMMITTED | pg_sys::HEAP_XMIN_INVALID) as u16;
        let xmin = (*row).t_choice.t_heap.t_xmin;
        (*row).t_infomask & frozen == frozen
            || pg_sys::TransactionIdPrecedes(xmin, pg_sys::TransactionXmin)
    }
}
