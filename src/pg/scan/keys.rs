//! Pending keys: names of profiles, by hashes of some of their columns.
//!
//! Invariant: what cannot be read with certainty counts as one of the keys; and a hash of the same texts is
//! the same forever.

use super::{Columns, begin, scan, usable};
use crate::pg::Oid;
use pgrx::pg_sys::{self, Datum};
use std::cell::LazyCell;

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
                    let (names, mut found) = (LazyCell::new(names), false);
                    scan(self.table, snapshot, |row| {
                        let key = row.int8(self.set).zip(row.int8(self.hash));
                        found = key.is_none_or(|(set, hash)| {
                            !sets.contains(&set) || names.contains(&KeyHash { set, hash })
                        });
                        found
                    });
                    found
                }
                _ => match usable(self.index, pg_sys::AccessShareLock) {
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
            let scan = begin(relation, index, snapshot, 2);
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
