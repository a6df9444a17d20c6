//! Locks of whole relations: taken as a query takes them, tried at once, and the turn of a refresh.
//!
//! Invariant: what is tried neither waits nor raises; what is had is kept to the end of the transaction, but for the turn, which is the
//! session's.

use super::Oid;
use pgrx::pg_sys::{self, Datum};

/// Whether two modes of locking a table keep each other out.
pub fn modes_conflict(one: i32, other: i32) -> bool {
    // SAFETY: looks them up in a constant table; both are numbers of lock modes.
    unsafe { pg_sys::DoLockModesConflict(one, other) }
}

/// Takes ACCESS SHARE on the table to the end of the transaction, as a query of it would.
pub fn lock_for_reading(table: Oid) {
    // SAFETY: waits like any reader; released at the transaction's end.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::AccessShareLock as i32) };
}

/// Takes ROW EXCLUSIVE on the table to the end of the transaction.
pub fn lock_for_writing(table: Oid) {
    // SAFETY: waits like any writer; released at the transaction's end.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::RowExclusiveLock as i32) };
}

/// The same if nobody holds or waits for a conflicting lock, and the server has room for one more.
pub fn try_lock_for_writing(table: Oid) -> bool {
    try_lock(table, pg_sys::RowExclusiveLock)
}

/// SHARE ROW EXCLUSIVE, likewise: nobody else writes the table then.
pub fn try_lock_against_writers(table: Oid) -> bool {
    try_lock(table, pg_sys::ShareRowExclusiveLock)
}

/// ACCESS SHARE, likewise. Who waits for a table that this transaction has locked already, in whatever mode, keeps
/// nobody of us from it.
pub fn try_lock_for_reading(relation: Oid) -> bool {
    let mode = pg_sys::AccessShareLock;
    // SAFETY: looks into this session's own table of locks, mode by mode, and so only where it must.
    try_lock(relation, mode)
        || unsafe { pg_sys::CheckRelationOidLockedByMe(relation, mode as i32, true) }
}

/// What ConditionalLockRelationOid does, but that a full lock table is a lock that is not had, and no error: at commit
/// that would be the app's.
fn try_lock(relation: Oid, mode: u32) -> bool {
    let mut local = std::ptr::null_mut();
    // SAFETY: does not wait; released at the transaction's end. The out parameter is set where the lock is had.
    unsafe {
        // As SetLocktagRelationOid.
        let database = match pg_sys::IsSharedRelation(relation) {
            true => Oid::INVALID,
            false => pg_sys::MyDatabaseId,
        };
        let tag = relation_tag(database, relation);
        #[cfg(not(feature = "pg18"))]
        let had = pg_sys::LockAcquireExtended(&tag, mode as i32, false, true, false, &mut local);
        #[cfg(feature = "pg18")]
        let had =
            pg_sys::LockAcquireExtended(&tag, mode as i32, false, true, false, &mut local, false);
        if had == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
            return false;
        }
        if had != pg_sys::LockAcquireResult::LOCKACQUIRE_ALREADY_CLEAR {
            pg_sys::AcceptInvalidationMessages();
            pg_sys::MarkLockClear(local);
        }
    }
    true
}

/// The lock of a relation, as SET_LOCKTAG_RELATION names it.
fn relation_tag(database: Oid, relation: Oid) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// Whose turn it is to refresh, over all its transactions: a lock that the session holds until it gives it back, ends, or
/// a transaction of its fails. On a view, since VACUUM takes the same lock on tables. PostgreSQL itself releases it at a
/// failure alone; at the session's end a callback of ours does.
pub struct Turn;

thread_local! {
    /// What is to be released when the session ends, once it has been taken.
    static TAKEN: std::cell::Cell<Option<pg_sys::LOCKTAG>> = const { std::cell::Cell::new(None) };
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn session_ends(_code: i32, _arg: Datum) {
    if let Some(tag) = TAKEN.get() {
        Turn::release(&tag);
    }
}

impl Turn {
    pub(super) const LOCK: i32 = pg_sys::ShareUpdateExclusiveLock as i32;

    pub(super) fn tag() -> Option<pg_sys::LOCKTAG> {
        let view = super::catalog::relation("profile_cache", "pending")?;
        // SAFETY: a backend variable.
        let database = unsafe { pg_sys::MyDatabaseId };
        Some(relation_tag(database, view))
    }

    /// Takes it, unless another session has it. Whoever has it already has it still.
    pub fn take() -> bool {
        let Some(tag) = Turn::tag() else {
            return false;
        };
        if TAKEN.replace(Some(tag)).is_none() {
            // SAFETY: once in a session; the callback lives as long as the library.
            unsafe { pg_sys::before_shmem_exit(Some(session_ends), Datum::from(0)) };
        }
        // SAFETY: does not wait; the tag is a relation's of this database.
        unsafe {
            Turn::is_held(&tag)
                || pg_sys::LockAcquire(&tag, Turn::LOCK, true, true)
                    != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
        }
    }

    /// Gives it back, where this session has it.
    pub fn give_back() {
        if let Some(tag) = Turn::tag() {
            Turn::release(&tag);
        }
    }

    pub(super) fn is_held(tag: &pg_sys::LOCKTAG) -> bool {
        // SAFETY: looks into this session's own table of locks.
        unsafe {
            #[cfg(any(feature = "pg15", feature = "pg16"))]
            return pg_sys::LockHeldByMe(tag, Turn::LOCK);
            #[cfg(not(any(feature = "pg15", feature = "pg16")))]
            pg_sys::LockHeldByMe(tag, Turn::LOCK, false)
        }
    }

    fn release(tag: &pg_sys::LOCKTAG) {
        if Turn::is_held(tag) {
            // SAFETY: released only where it is held.
            unsafe { pg_sys::LockRelease(tag, Turn::LOCK, true) };
        }
    }
}
