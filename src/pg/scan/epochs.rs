//! Which epoch is the current one, and whether others are pending.
//!
//! Invariant: no pending epoch is missed. Where the index cannot be used, that is said; where the tables are gone, there
//! is no current one.

use super::{Columns, UniqueIndexLookup, by_index, scan, scan_opened, usable};
use crate::pg::Oid;
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
    /// Its columns that say what leads to profiles.
    pub link: LinkColumns,
    pub progress: Progress,
}

/// Columns of a pending epoch: its name, and table, columns and values that lead to the profiles that it concerns. Null
/// where it concerns all.
#[derive(Clone, Copy, Debug)]
pub struct LinkColumns {
    pub id: i16,
    pub schema: i16,
    pub table: i16,
    pub columns: i16,
    pub values: i16,
    /// A hash of the definition in whose words these are.
    pub definition: Option<i16>,
}

/// How far refresh is with each epoch that has a number: a small table, and its columns.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub table: Oid,
    pub lookup: UniqueIndexLookup,
    pub passed_xmin: i16,
}

/// What the active snapshot shows of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EpochLook {
    pub current: Option<i64>,
    /// The pending ones have been handed out, as far as they were asked for. If not, whatever may be pending.
    pub complete: bool,
}

impl Epochs {
    /// In the active snapshot. Hands each pending epoch to `enough` until it says so.
    pub fn look(&self, mut enough: impl FnMut(&dyn Columns) -> bool) -> EpochLook {
        let mut complete = true;
        // SAFETY: a backend variable; the calling query has an active snapshot. The relation is open and
        // locked during the look.
        unsafe {
            let snapshot = pg_sys::GetActiveSnapshot();
            let relation = pg_sys::try_table_open(self.pending, pg_sys::AccessShareLock as i32);
            if !relation.is_null() {
                match Size::of(relation) {
                    Size::Nothing => {}
                    Size::Pages => match usable(self.index, pg_sys::AccessShareLock) {
                        Some(index) => {
                            let from = self.horizon_in(snapshot);
                            let mut condition = pg_sys::ScanKeyData::default();
                            pg_sys::ScanKeyInit(
                                &mut condition,
                                1,
                                pg_sys::BTGreaterEqualStrategyNumber as u16,
                                pg_sys::F_INT8GE.into(),
                                Datum::from(from),
                            );
                            by_index(relation, index, snapshot, &mut condition, |row| enough(row));
                            pg_sys::index_close(index, pg_sys::NoLock as i32);
                        }
                        None => complete = false,
                    },
                    Size::Page => scan_opened(relation, snapshot, |row| enough(row)),
                }
                pg_sys::table_close(relation, pg_sys::NoLock as i32);
            }
            EpochLook { current: self.current_in(snapshot), complete }
        }
    }

    /// Row versions of an older xmin have been through a complete pass of this epoch, as the active snapshot shows it;
    /// None where there has been none, as far as can be seen.
    pub fn passed_xmin(&self, epoch: i64) -> Option<u64> {
        let Progress { table, lookup, passed_xmin } = self.progress;
        let found = lookup.find(table, Datum::from(epoch), |row| row.int8(passed_xmin))?;
        u64::try_from(found??).ok()
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

    /// From which horizon on something may be pending: where it is not said, from the first.
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
