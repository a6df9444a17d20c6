//! Writing the four columns below SQL.
//!
//! Invariant: no trigger, rule or policy of the app sees the write, and nothing but the four columns
//! of a row that this transaction has locked is changed. This is what logical replication's apply
//! does (ExecSimpleRelationUpdate), without the app's triggers; but with PostgreSQL's own deferred
//! checks: one that is queued for the version we replace (a deferred foreign key or unique
//! constraint) skips a version that is no longer live and relies on the next one's being queued.

use super::Oid;
use super::scan::Row;
use super::value::Value;
use pgrx::pg_sys::{self, Datum};

/// What is stored beside a profile.
#[derive(Clone, Copy)]
pub struct Stored {
    pub document: Option<Value>,
    pub valid_until: Option<i64>,
    pub epoch: Option<i64>,
    pub updated_at: i64,
}

/// The profile table, open for writing.
pub struct Writer {
    relation: pg_sys::Relation,
    columns: [i32; 4],
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
    result: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
    /// The table has constraints that PostgreSQL checks by triggers.
    checks: bool,
}

/// What our columns need at most of a row's own space: a TOAST pointer, three numbers, their nulls.
const OURS: usize = 128;
/// MaxHeapTupleSize: a page less its header and one line pointer (htup_details.h).
const PAGE: usize = pg_sys::BLCKSZ as usize - 24 - 8;

/// Takes ROW EXCLUSIVE on the table to the end of the transaction.
pub fn lock_for_writing(table: Oid) {
    // SAFETY: waits like any writer; released at the transaction's end.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::RowExclusiveLock as i32) };
}

/// The same if nobody holds or waits for a conflicting lock.
pub fn try_lock_for_writing(table: Oid) -> bool {
    // SAFETY: does not wait; released at the transaction's end.
    unsafe { pg_sys::ConditionalLockRelationOid(table, pg_sys::RowExclusiveLock as i32) }
}

/// ACCESS SHARE, likewise. Who waits for a table that this transaction has locked already, in whatever mode, keeps
/// nobody of us from it.
pub fn try_lock_for_reading(relation: Oid) -> bool {
    // SAFETY: as above.
    unsafe {
        pg_sys::CheckRelationOidLockedByMe(relation, pg_sys::AccessShareLock as i32, true)
            || pg_sys::ConditionalLockRelationOid(relation, pg_sys::AccessShareLock as i32)
    }
}

/// The profile table, open for locking rows.
pub struct Locker {
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Locker {
    /// Takes ROW EXCLUSIVE on the table to the end of the transaction.
    pub fn open(table: Oid) -> Locker {
        // SAFETY: closed in `close`, or by the abort.
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as i32);
            Locker {
                relation,
                slot: pg_sys::table_slot_create(relation, std::ptr::null_mut()),
            }
        }
    }

    /// Locks the row that the active snapshot shows at `tid`, at its newest version, as FOR NO KEY
    /// UPDATE SKIP LOCKED would: that version's TID, and what `moved` makes of it where it is a later one
    /// than the snapshot's. None where another transaction holds the row or has deleted it; and where
    /// this transaction keeps one snapshot and the row has been written since.
    pub fn lock<R>(
        &mut self,
        mut tid: pg_sys::ItemPointerData,
        moved: impl FnOnce(&Row) -> R,
    ) -> Option<(pg_sys::ItemPointerData, Option<R>)> {
        let mut flags = pg_sys::TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS;
        if !super::xact::has_one_snapshot() {
            flags |= pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
        }
        // SAFETY: relation and slot are open; the out parameter is read after the call.
        unsafe {
            let mut failure = pg_sys::TM_FailureData::default();
            let result = pg_sys::table_tuple_lock(
                self.relation,
                &mut tid,
                pg_sys::GetActiveSnapshot(),
                self.slot,
                pg_sys::GetCurrentCommandId(true),
                pg_sys::LockTupleMode::LockTupleNoKeyExclusive,
                pg_sys::LockWaitPolicy::LockWaitSkip,
                flags as u8,
                &mut failure,
            );
            if result != pg_sys::TM_Result::TM_Ok {
                return None;
            }
            let row = Row { slot: self.slot };
            let found = (row.tid(), failure.traversed.then(|| moved(&row)));
            pg_sys::ExecClearTuple(self.slot);
            Some(found)
        }
    }

    /// The table's lock stays.
    pub fn close(self) {
        // SAFETY: opened by `open`.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
        }
    }
}

impl Writer {
    /// `columns`: the numbers of document, valid_until, epoch and updated_at. `deferrable`: a check of
    /// PostgreSQL's can still be queued, and must be.
    pub fn open(table: Oid, columns: [i16; 4], deferrable: bool) -> Writer {
        // SAFETY: everything opened here is closed in `finish`, or by the abort. A ResultRelInfo with no
        // range table index is what index maintenance takes for "not from a query".
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as i32);
            // As for any UPDATE: one that a publication could not replicate is refused.
            pg_sys::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_UPDATE);
            let result: *mut pg_sys::ResultRelInfo =
                pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast();
            (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(result, relation, 0, std::ptr::null_mut(), 0);
            let checks = keep_constraint_checks(result, deferrable);
            if checks {
                pg_sys::AfterTriggerBeginQuery();
            }
            pg_sys::ExecOpenIndices(result, false);
            pg_sys::CommandCounterIncrement();
            Writer {
                relation,
                columns: columns.map(i32::from),
                old: pg_sys::table_slot_create(relation, std::ptr::null_mut()),
                new: pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &pg_sys::TTSOpsHeapTuple),
                result,
                estate: pg_sys::CreateExecutorState(),
                checks,
            }
        }
    }

    /// Stores `s` in the row version at `tid`, which this transaction has locked and not updated
    /// since. False where the row is so nearly as large as a page that ours might not fit.
    pub fn write(&mut self, mut tid: pg_sys::ItemPointerData, s: &Stored) -> bool {
        let fields: [Option<Datum>; 4] = [
            s.document.map(|v| v.datum),
            s.valid_until.map(Datum::from),
            s.epoch.map(Datum::from),
            Some(Datum::from(s.updated_at)),
        ];
        let mut values = fields.map(|f| f.unwrap_or(Datum::null()));
        let mut nulls = fields.map(|f| f.is_none());
        // SAFETY: relation, slots and estate are open; the row is locked, so the version at `tid` is
        // the newest one and stays it.
        unsafe {
            if !pg_sys::table_tuple_fetch_row_version(
                self.relation,
                &mut tid,
                &raw mut pg_sys::SnapshotAnyData,
                self.old,
            ) {
                return false;
            }
            let mut free = false;
            let tuple = pg_sys::ExecFetchSlotHeapTuple(self.old, false, &mut free);
            let changed = pg_sys::heap_modify_tuple_by_cols(
                tuple,
                (*self.relation).rd_att,
                4,
                self.columns.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            // All but the document may have to stay in the page.
            let document = s.document.map_or(0, Value::size);
            if (*changed).t_len as usize + OURS > PAGE + document {
                pg_sys::heap_freetuple(changed);
                pg_sys::ExecClearTuple(self.old);
                return false;
            }
            pg_sys::ExecStoreHeapTuple(changed, self.new, true);
            let mut old_tid = tid;
            let mut indexes = Default::default();
            pg_sys::simple_table_tuple_update(
                self.relation,
                &mut tid,
                self.new,
                pg_sys::GetActiveSnapshot(),
                &mut indexes,
            );
            let recheck = self.maintain_indexes(indexes);
            pg_sys::ExecARUpdateTriggers(
                self.estate,
                self.result,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                &mut old_tid,
                std::ptr::null_mut(),
                self.new,
                recheck,
                std::ptr::null_mut(),
                false,
            );
            self.reset();
            pg_sys::ExecClearTuple(self.new);
            pg_sys::ExecClearTuple(self.old);
            true
        }
    }

    /// Inserts the entries that the indexes need; which unique ones must be checked again later.
    #[cfg(feature = "pg15")]
    fn maintain_indexes(&mut self, needed: bool) -> *mut pg_sys::List {
        if !needed {
            return std::ptr::null_mut();
        }
        // SAFETY: the new version is in the slot with its TID; with no index it does nothing.
        unsafe {
            pg_sys::ExecInsertIndexTuples(
                self.result,
                self.new,
                self.estate,
                true,
                false,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        }
    }

    /// Inserts the entries that the indexes need; which unique ones must be checked again later.
    #[cfg(not(feature = "pg15"))]
    fn maintain_indexes(&mut self, needed: pg_sys::TU_UpdateIndexes::Type) -> *mut pg_sys::List {
        use pg_sys::TU_UpdateIndexes::*;
        if needed == TU_None {
            return std::ptr::null_mut();
        }
        // SAFETY: the new version is in the slot with its TID; with no index it does nothing.
        unsafe {
            pg_sys::ExecInsertIndexTuples(
                self.result,
                self.new,
                self.estate,
                true,
                false,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                needed == TU_Summarizing,
            )
        }
    }

    /// Ends the writing: immediate checks run now, deferred ones at commit. The lock stays.
    pub fn finish(self) {
        // SAFETY: everything was opened by `open`; on an error the abort releases it instead.
        unsafe {
            if self.checks {
                pg_sys::AfterTriggerEndQuery(self.estate);
                pg_sys::ExecCloseResultRelations(self.estate);
            }
            pg_sys::ExecCloseIndices(self.result);
            pg_sys::ExecDropSingleTupleTableSlot(self.old);
            pg_sys::ExecDropSingleTupleTableSlot(self.new);
            pg_sys::ExecResetTupleTable((*self.estate).es_tupleTable, false);
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
            pg_sys::CommandCounterIncrement();
        }
    }

    /// Frees what evaluating index expressions for one row allocated.
    fn reset(&mut self) {
        // SAFETY: the per-tuple context belongs to our estate.
        unsafe {
            let context = (*self.estate).es_per_tuple_exprcontext;
            if !context.is_null() {
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }
}

/// Of the table's triggers, leaves in `result` only PostgreSQL's own checks of the row's constraints, or
/// none of them; whether there are any.
///
/// # Safety
/// `result` has just been initialised; its trigger description is its own copy.
unsafe fn keep_constraint_checks(result: *mut pg_sys::ResultRelInfo, any: bool) -> bool {
    // SAFETY: as said; the array is compacted in place and only gets shorter.
    unsafe {
        let desc = (*result).ri_TrigDesc;
        if desc.is_null() {
            return false;
        }
        let mut kept = 0;
        for i in 0..(*desc).numtriggers as usize {
            let trigger = (*desc).triggers.add(i);
            let function = (*trigger).tgfoid.to_u32();
            if any
                && (*trigger).tgisinternal
                && [pg_sys::F_RI_FKEY_CHECK_UPD, pg_sys::F_UNIQUE_KEY_RECHECK].contains(&function)
            {
                std::ptr::copy(trigger, (*desc).triggers.add(kept), 1);
                kept += 1;
            }
        }
        let triggers = (*desc).triggers;
        *desc = pg_sys::TriggerDesc {
            triggers,
            numtriggers: kept as i32,
            trig_update_after_row: kept > 0,
            ..Default::default()
        };
        kept > 0
    }
}
