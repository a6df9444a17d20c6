//! Writing the four columns below SQL.
//!
//! Invariant: no trigger, rule or policy of the app sees the write, and nothing but the four columns
//! of a row that this transaction has locked is changed. All other values being what they were, no
//! constraint of the app's is checked again: a check could wait for another transaction, and nothing
//! that it looks at has changed. Nothing may be queued for the version that we replace, since a queued
//! check skips one that is no longer live; behind the last deferred trigger nothing is, and refresh
//! asks ([`has_checks_queued`]).

use super::Oid;
use super::scan::HeapRow;
use super::value::Value;
use crate::error::Error;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
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
    /// Null where they have not been opened yet.
    result: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
    /// Indexes whose code may not be run.
    foreign: Vec<Oid>,
}

/// Whether PostgreSQL still has a check of the table's constraints to run in this transaction.
pub fn has_checks_queued(table: Oid) -> bool {
    // SAFETY: looks through this transaction's queued trigger events.
    unsafe { pg_sys::AfterTriggerPendingOnRel(table) }
}

/// HEAP_XMIN_FROZEN (htup_details.h).
const FROZEN: u32 = pg_sys::HEAP_XMIN_COMMITTED | pg_sys::HEAP_XMIN_INVALID;

/// What our columns need at most of a row's own space: a TOAST pointer, three numbers, their nulls.
const OURS: usize = 128;
/// MaxHeapTupleSize: a page less its header and one line pointer (htup_details.h).
const PAGE: usize = pg_sys::BLCKSZ as usize - 24 - 8;

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
            Locker { relation, slot: pg_sys::table_slot_create(relation, std::ptr::null_mut()) }
        }
    }

    /// Locks the row that the active snapshot shows at `tid`, at its newest version, as FOR NO KEY
    /// UPDATE SKIP LOCKED would: that version's TID, and what `moved` makes of it where it is a later one
    /// than the snapshot's. None where another transaction holds the row or has deleted it; and where
    /// this transaction keeps one snapshot and the row has been written since.
    pub fn lock<R>(
        &mut self,
        mut tid: pg_sys::ItemPointerData,
        moved: impl FnOnce(&HeapRow) -> R,
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
            let row = HeapRow { slot: self.slot };
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
    /// `columns`: the numbers of document, valid_until, epoch and updated_at. `foreign`: indexes into which
    /// nothing may be put, since that runs code that is not to be run. `plain`: no index can refuse an entry of ours, so they
    /// are opened where a version needs one, which one that fits in place does not.
    pub fn open(table: Oid, columns: [i16; 4], foreign: &[Oid], plain: bool) -> Writer {
        // SAFETY: everything opened here is closed in `finish`, or by the abort.
        let mut writer = unsafe {
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock as i32);
            // As for any UPDATE: one that a publication could not replicate is refused. Where there was none when the table was
            // locked, one may have come since, and an UPDATE that began then would not ask either.
            if !plain {
                pg_sys::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_UPDATE);
            }
            pg_sys::CommandCounterIncrement();
            Writer {
                relation,
                columns: columns.map(i32::from),
                old: pg_sys::table_slot_create(relation, std::ptr::null_mut()),
                new: pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &pg_sys::TTSOpsHeapTuple),
                result: std::ptr::null_mut(),
                estate: std::ptr::null_mut(),
                foreign: foreign.to_vec(),
            }
        };
        if !plain {
            writer.open_indexes();
        }
        writer
    }

    fn open_indexes(&mut self) {
        // SAFETY: the relation is open; closed in `finish`, or by the abort. A ResultRelInfo with no range table index is
        // what index maintenance takes for "not from a query".
        unsafe {
            let result: *mut pg_sys::ResultRelInfo =
                pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast();
            (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(result, self.relation, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(result, false);
            self.result = result;
            self.estate = pg_sys::CreateExecutorState();
        }
    }

    /// Whether a unique index has our columns in it: to PostgreSQL a write of ours then changes a key of the row,
    /// which waits for whoever refers to it, and it never fits in place.
    pub fn keeps_ours_apart(&self) -> bool {
        self.indexes().iter().any(|index| index.keeps_apart(&self.columns))
    }

    /// Whether there is an index into which a new version may not go, or not unchecked.
    pub fn may_be_refused(&self) -> bool {
        self.indexes().iter().any(|index| self.refuses(index))
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
            let Some(tuple) = self.version(&mut tid) else { return false };
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
            self.replace(&mut tid, changed);
            true
        }
    }

    /// Takes the stamp of the row version at `tid`, which is as for [`Writer::write`]; unless it is one of this transaction's own
    /// that has none.
    pub fn distrust(&mut self, mut tid: pg_sys::ItemPointerData) -> bool {
        // SAFETY: as in `write`.
        unsafe {
            let Some(tuple) = self.version(&mut tid) else { return false };
            let epoch = self.columns[2];
            let (mut columns, mut values, mut nulls) = ([epoch], [Datum::null()], [true]);
            let header = &*(*tuple).t_data;
            let written_by = header.t_choice.t_heap.t_xmin;
            // The number that a frozen version bears may have come round.
            let frozen = u32::from(header.t_infomask) & FROZEN == FROZEN;
            if !frozen
                && pg_sys::heap_attisnull(tuple, epoch, (*self.relation).rd_att)
                && pg_sys::TransactionIdIsCurrentTransactionId(written_by)
            {
                pg_sys::ExecClearTuple(self.old);
                return true;
            }
            let changed = pg_sys::heap_modify_tuple_by_cols(
                tuple,
                (*self.relation).rd_att,
                1,
                columns.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            self.replace(&mut tid, changed);
            true
        }
    }

    /// The row version at `tid`, which stands in the slot `old` from here on.
    fn version(&mut self, tid: &mut pg_sys::ItemPointerData) -> Option<pg_sys::HeapTuple> {
        // SAFETY: relation and slot are open; the tuple is the slot's.
        unsafe {
            let any = &raw mut pg_sys::SnapshotAnyData;
            let found = pg_sys::table_tuple_fetch_row_version(self.relation, tid, any, self.old);
            let mut free = false;
            found.then(|| pg_sys::ExecFetchSlotHeapTuple(self.old, false, &mut free))
        }
    }

    /// Puts the new version in the place of the one at `tid`, which stands in the slot `old`.
    ///
    /// # Safety
    /// The row is locked by this transaction, and the version is the newest one; `changed` is a tuple of the relation's.
    unsafe fn replace(
        &mut self,
        tid: &mut pg_sys::ItemPointerData,
        changed: *mut pg_sys::HeapTupleData,
    ) {
        // SAFETY: relation and slots are open; the slot frees the tuple.
        unsafe {
            pg_sys::ExecStoreHeapTuple(changed, self.new, true);
            let mut indexes = Default::default();
            pg_sys::simple_table_tuple_update(
                self.relation,
                tid,
                self.new,
                pg_sys::GetActiveSnapshot(),
                &mut indexes,
            );
            self.maintain_indexes(indexes);
            self.reset();
            pg_sys::ExecClearTuple(self.new);
            pg_sys::ExecClearTuple(self.old);
        }
    }

    /// Inserts the entries that the indexes need for the version in the slot `new`.
    fn maintain_indexes(&mut self, needed: Needed) {
        if needed == Needed::default() {
            return;
        }
        if self.result.is_null() {
            self.open_indexes();
        }
        for index in self.indexes() {
            if index.is_needed(needed) {
                if self.refuses(&index) {
                    Error::IndexChecked(index.name()).raise();
                }
                index.insert(self);
            }
        }
    }

    fn refuses(&self, index: &Index) -> bool {
        self.foreign.contains(&index.oid()) || index.needs_check(&self.columns)
    }

    fn indexes(&self) -> Vec<Index> {
        // SAFETY: opened by ExecOpenIndices, in arrays of that many.
        unsafe {
            let result = &*self.result;
            let number = usize::try_from(result.ri_NumIndices).unwrap_or_default();
            let all = (0..number).map(|i| Index {
                relation: *result.ri_IndexRelationDescs.add(i),
                info: *result.ri_IndexRelationInfo.add(i),
            });
            all.filter(|i| !i.relation.is_null() && (*i.info).ii_ReadyForInserts).collect()
        }
    }

    /// Ends the writing. The lock stays.
    pub fn finish(self) {
        // SAFETY: everything was opened by `open`; on an error the abort releases it instead.
        unsafe {
            if !self.result.is_null() {
                pg_sys::ExecCloseIndices(self.result);
                pg_sys::ExecResetTupleTable((*self.estate).es_tupleTable, false);
                pg_sys::FreeExecutorState(self.estate);
            }
            pg_sys::ExecDropSingleTupleTableSlot(self.old);
            pg_sys::ExecDropSingleTupleTableSlot(self.new);
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
            pg_sys::CommandCounterIncrement();
        }
    }

    /// Frees what evaluating index expressions for one row allocated.
    fn reset(&mut self) {
        if self.estate.is_null() {
            return;
        }
        // SAFETY: the per-tuple context belongs to our estate.
        unsafe {
            let context = (*self.estate).es_per_tuple_exprcontext;
            if !context.is_null() {
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }
}

/// Which indexes an update has to put an entry into.
#[cfg(feature = "pg15")]
type Needed = bool;
#[cfg(not(feature = "pg15"))]
type Needed = pg_sys::TU_UpdateIndexes::Type;

/// An index of the table, open.
struct Index {
    relation: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
}

impl Index {
    #[cfg(feature = "pg15")]
    fn is_needed(&self, needed: Needed) -> bool {
        needed
    }

    #[cfg(not(feature = "pg15"))]
    fn is_needed(&self, needed: Needed) -> bool {
        use pg_sys::TU_UpdateIndexes::*;
        // SAFETY: open, as in `indexes`.
        needed == TU_All || needed == TU_Summarizing && unsafe { (*self.info).ii_Summarizing }
    }

    /// Whether an entry may not go in unchecked: the index keeps values apart, and ours are among them,
    /// or it is still being built, when whoever builds it relies on the check.
    fn needs_check(&self, ours: &[i32; 4]) -> bool {
        // SAFETY: open, as in `indexes`; the expressions are trees of this table's columns alone.
        unsafe {
            let info = &*self.info;
            let constraint = info.ii_Unique || !info.ii_ExclusionOps.is_null();
            constraint && !(*(*self.relation).rd_index).indisvalid || self.keeps_apart(ours)
        }
    }

    /// Whether it keeps values apart and ours are among them.
    fn keeps_apart(&self, ours: &[i32; 4]) -> bool {
        // SAFETY: as above.
        unsafe {
            let info = &*self.info;
            if !info.ii_Unique && info.ii_ExclusionOps.is_null() {
                return false;
            }
            let keys = usize::try_from(info.ii_NumIndexKeyAttrs).unwrap_or_default();
            let mut used = std::ptr::null_mut();
            for expressions in [info.ii_Expressions, info.ii_Predicate] {
                pg_sys::pull_varattnos(expressions.cast(), 1, &mut used);
            }
            let whole_row = pg_sys::FirstLowInvalidHeapAttributeNumber;
            ours.iter().any(|column| {
                let named = info.ii_IndexAttrNumbers[..keys].iter();
                named.copied().any(|n| i32::from(n) == *column)
                    || pg_sys::bms_is_member(*column - whole_row, used)
            }) || pg_sys::bms_is_member(-whole_row, used)
        }
    }

    fn oid(&self) -> Oid {
        // SAFETY: open, as in `indexes`.
        unsafe { (*self.relation).rd_id }
    }

    fn name(&self) -> String {
        // SAFETY: open, as in `indexes`.
        let name =
            unsafe { std::ffi::CStr::from_ptr((*(*self.relation).rd_rel).relname.data.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    /// Puts an entry in for the version in the writer's slot, unless the predicate leaves it out: what
    /// ExecInsertIndexTuples does, without the check of values that are those of the version before.
    fn insert(&self, writer: &Writer) {
        // SAFETY: index, table, slot and estate are open; the arrays are of the most columns that an
        // index can have. ExecQual is inline in C: a call of the prepared expression's function.
        unsafe {
            let (info, estate) = (self.info, writer.estate);
            let mut context = (*estate).es_per_tuple_exprcontext;
            if context.is_null() {
                context = pg_sys::MakePerTupleExprContext(estate);
            }
            (*context).ecxt_scantuple = writer.new;
            if !(*info).ii_Predicate.is_null() {
                if (*info).ii_PredicateState.is_null() {
                    (*info).ii_PredicateState =
                        pg_sys::ExecPrepareQual((*info).ii_Predicate, estate);
                }
                let state = (*info).ii_PredicateState;
                if let Some(evaluate) = (*state).evalfunc {
                    let before = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
                    let mut null = false;
                    let holds =
                        pg_guard_ffi_boundary(|| evaluate(state, context, &mut null)).value() != 0;
                    pg_sys::MemoryContextSwitchTo(before);
                    if !holds {
                        return;
                    }
                }
            }
            const MOST: usize = pg_sys::INDEX_MAX_KEYS as usize;
            let (mut values, mut nulls) = ([Datum::null(); MOST], [false; MOST]);
            pg_sys::FormIndexDatum(
                info,
                writer.new,
                estate,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            pg_sys::index_insert(
                self.relation,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                &mut (*writer.new).tts_tid,
                writer.relation,
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
                true,
                info,
            );
        }
    }
}
