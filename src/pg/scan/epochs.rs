//! Which epoch is the current one, and whether others are pending.
//!
//! Invariant: no pending epoch is missed. Where the index cannot be used, one counts as there, and without a
//! number; where the tables are gone, there is no current one.

use super::{scan, usable, walk};
use crate::pg::Oid;
use pgrx::pg_sys;

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
pub struct EpochLook {
    pub current: Option<i64>,
    /// There is a pending epoch.
    pub pending: bool,
    /// There is one without a number: no stamp is beyond it.
    pub unnumbered: bool,
}

impl Epochs {
    /// In the active snapshot.
    pub fn look(&self) -> EpochLook {
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
            EpochLook { current: self.current_in(snapshot), pending: rows > 0, unnumbered }
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
