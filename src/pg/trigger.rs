//! What a trigger function is told: the table, the event, the rows.
//!
//! Invariant: the OLD and NEW transition tables of one UPDATE trigger are filled pairwise, one row
//! of each at a time (AfterTriggerSaveEvent), so that the n-th of one belongs to the n-th of the
//! other, whatever the statement did to the primary key.

use super::value::{TypeLayout, Value};
use super::{Oid, catalog, fmgr::Call};
use crate::error::Error;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::{self, Datum};
use std::ops::ControlFlow;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Insert,
    Delete,
    Update,
    Truncate,
}

/// One firing of a trigger.
pub struct TriggerCall {
    data: *mut pg_sys::TriggerData,
}

/// One row of a transition table, alive during the closure that receives it.
pub struct Tuple {
    slot: *mut pg_sys::TupleTableSlot,
}

impl Tuple {
    pub fn get(&self, column: i16) -> Option<Datum> {
        let number = usize::try_from(column).ok()?.checked_sub(1)?;
        // SAFETY: the slot holds a row of the trigger's table, which has this column. What slot_getattr does, which is inline
        // in C: the columns up to this one are taken apart once.
        unsafe {
            if (*self.slot).tts_nvalid < column {
                pg_sys::slot_getsomeattrs_int(self.slot, i32::from(column));
            }
            (!*(*self.slot).tts_isnull.add(number)).then(|| *(*self.slot).tts_values.add(number))
        }
    }

    /// The values of these columns; None with a NULL among them.
    pub fn values(&self, columns: &[Column]) -> Option<Vec<Value>> {
        let value = |c: &Column| Some(Value { datum: self.get(c.number)?, oid: c.oid });
        columns.iter().map(value).collect()
    }

    /// Puts their images into `to`, one behind the other, each behind its length; false with a NULL among them.
    pub fn images(&self, columns: &[Column], to: &mut Images) -> bool {
        to.clear();
        columns.iter().all(|c| {
            let Some(datum) = self.get(c.number) else {
                return false;
            };
            let at = to.len();
            to.extend_from_slice(&[0; size_of::<u32>()]);
            Value { datum, oid: c.oid }.image(&c.storage, to);
            // A value is less than a gigabyte.
            let length = (to.len() - at - size_of::<u32>()) as u32;
            to[at..at + size_of::<u32>()].copy_from_slice(&length.to_ne_bytes());
            true
        })
    }
}

// utils/tuplestore.h: called together for each row, in one crossing into C.
unsafe extern "C-unwind" {
    fn tuplestore_select_read_pointer(state: *mut pg_sys::Tuplestorestate, pointer: i32);
    fn tuplestore_gettupleslot(
        state: *mut pg_sys::Tuplestorestate,
        forward: bool,
        copy: bool,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool;
}

/// What some columns hold in a row, by their images: equal where all of them are.
pub type Images = Vec<u8>;

/// A column as comparing and copying need it.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub number: i16,
    pub oid: Oid,
    pub storage: TypeLayout,
}

impl Column {
    pub fn of(relation: Oid, number: i16) -> Column {
        let oid = catalog::base_type(catalog::column_type(relation, number));
        Column { number, oid, storage: TypeLayout::of(oid) }
    }

    /// Copies of the columns' values in the current memory context.
    pub fn copy(columns: &[Column], values: &[Value]) -> Vec<Value> {
        let copied =
            columns.iter().zip(values).map(|(c, v)| Value { datum: c.storage.copy(v.datum), ..*v });
        copied.collect()
    }

    /// Whether the column has one image in both rows.
    pub fn same(&self, a: &Tuple, b: &Tuple) -> bool {
        self.storage.same_image(a.get(self.number), b.get(self.number))
    }
}

impl TriggerCall {
    /// Refuses (39P01) a call that is not a firing of the given level and timing.
    pub fn new(call: &Call, name: &'static str, before: bool, row: bool) -> TriggerCall {
        // SAFETY: fcinfo is the live call's; its context is a node where it is set.
        let data: *mut pg_sys::TriggerData = unsafe { (*call.fcinfo).context.cast() };
        // SAFETY: as above; every node starts with its tag.
        if data.is_null() || unsafe { (*data).type_ } != pg_sys::NodeTag::T_TriggerData {
            Error::NotATrigger(name).raise();
        }
        let f = TriggerCall { data };
        let bits = f.bits();
        let is_before = bits & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE;
        if is_before != before || (bits & pg_sys::TRIGGER_EVENT_ROW != 0) != row {
            Error::WrongTrigger(name).raise();
        }
        f
    }

    fn bits(&self) -> u32 {
        // SAFETY: `data` is the live TriggerData, here and below.
        unsafe { (*self.data).tg_event }
    }

    pub fn event(&self) -> Event {
        match self.bits() & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            _ => Event::Truncate,
        }
    }

    pub fn relation(&self) -> Oid {
        // SAFETY: the trigger's relation is open during the firing.
        unsafe { (*(*self.data).tg_relation).rd_id }
    }

    /// For BEFORE ROW: the row to store, as the statement has it.
    pub fn unchanged(&self) -> Datum {
        // SAFETY: a BEFORE ROW firing has these tuples.
        unsafe {
            Datum::from(match self.event() {
                Event::Update => (*self.data).tg_newtuple,
                _ => (*self.data).tg_trigtuple,
            })
        }
    }

    /// For BEFORE ROW: the row to store, with `columns` as OLD had them (NULL on INSERT); and with
    /// the one of index `cleared` NULL too where a `watched` column differs between OLD and NEW, or
    /// `always`.
    pub fn keep_old(
        &self,
        columns: &[Column; 4],
        cleared: usize,
        watched: &[Column],
        always: bool,
    ) -> Datum {
        // SAFETY: a BEFORE ROW firing has tg_trigtuple, and tg_newtuple on UPDATE; both belong to
        // the relation whose descriptor is used. heap_modify_tuple_by_cols copies.
        unsafe {
            let desc = (*(*self.data).tg_relation).rd_att;
            let old = (*self.data).tg_trigtuple;
            let update = self.event() == Event::Update;
            let new = if update { (*self.data).tg_newtuple } else { old };
            let get = |tuple, column: i16| {
                let mut null = false;
                let d = pg_sys::heap_getattr(tuple, i32::from(column), desc, &mut null);
                (!null).then_some(d)
            };
            let mut numbers = columns.map(|c| i32::from(c.number));
            let mut values = [Datum::null(); 4];
            let mut nulls = [true; 4];
            let mut as_they_are = true;
            let changed = update
                && (always
                    || watched
                        .iter()
                        .any(|c| !c.storage.same_image(get(old, c.number), get(new, c.number))));
            for (i, column) in columns.iter().enumerate() {
                let kept = if update { get(old, column.number) } else { None };
                let kept = kept.filter(|_| !(changed && i == cleared));
                if let Some(d) = kept {
                    values[i] = d;
                    nulls[i] = false;
                }
                as_they_are &= match (kept, get(new, column.number)) {
                    (None, None) => true,
                    (Some(kept), Some(stated)) => column.storage.same_bytes(kept, stated),
                    _ => false,
                };
            }
            // Most statements leave them alone, and many rows come without: no copy of the row then.
            if as_they_are {
                return Datum::from(new);
            }
            Datum::from(pg_sys::heap_modify_tuple_by_cols(
                new,
                desc,
                4,
                numbers.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            ))
        }
    }

    /// Hands every inserted, deleted or updated row of the statement to `each`, as (old, new).
    pub fn rows(&self, mut each: impl FnMut(Option<&Tuple>, Option<&Tuple>) -> ControlFlow<()>) {
        // SAFETY: an AFTER STATEMENT firing carries the transition tables that its trigger names,
        // alive during the firing.
        let (old, new, desc) = unsafe {
            ((*self.data).tg_oldtable, (*self.data).tg_newtable, (*(*self.data).tg_relation).rd_att)
        };
        let old = TransitionReader::open(old, desc);
        let new = TransitionReader::open(new, desc);
        loop {
            let (o, n) = (
                old.as_ref().and_then(TransitionReader::next),
                new.as_ref().and_then(TransitionReader::next),
            );
            if o.is_none() && n.is_none() {
                break;
            }
            if each(o.as_ref(), n.as_ref()).is_break() {
                break;
            }
        }
    }
}

/// A read pointer of its own on a transition table, which other triggers read too.
struct TransitionReader {
    store: *mut pg_sys::Tuplestorestate,
    pointer: i32,
    slot: *mut pg_sys::TupleTableSlot,
}

impl TransitionReader {
    fn open(
        store: *mut pg_sys::Tuplestorestate,
        desc: pg_sys::TupleDesc,
    ) -> Option<TransitionReader> {
        if store.is_null() {
            return None;
        }
        // SAFETY: the store is alive; the pointer is released with it; the slot in Drop.
        unsafe {
            let pointer =
                pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as i32);
            pg_sys::tuplestore_select_read_pointer(store, pointer);
            pg_sys::tuplestore_rescan(store);
            let slot = pg_sys::MakeSingleTupleTableSlot(desc, &pg_sys::TTSOpsMinimalTuple);
            Some(TransitionReader { store, pointer, slot })
        }
    }

    fn next(&self) -> Option<Tuple> {
        // SAFETY: store and slot are alive; the row stays in the slot until the next fetch.
        unsafe {
            let found = pg_guard_ffi_boundary(|| {
                tuplestore_select_read_pointer(self.store, self.pointer);
                tuplestore_gettupleslot(self.store, true, false, self.slot)
            });
            found.then_some(Tuple { slot: self.slot })
        }
    }
}

impl Drop for TransitionReader {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by `open`.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
        }
    }
}
