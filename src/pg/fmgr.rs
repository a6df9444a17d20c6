//! The call convention: arguments in, results out.
//!
//! Invariant: an accessor's type is the argument's declared SQL type (sql/profile_cache.sql).

use super::Oid;
use super::value::{self, Uuid, Value};
use pgrx::pg_sys::{self, Datum};
use std::ffi::CStr;

/// One call of a C function.
pub struct Call {
    pub(super) fcinfo: pg_sys::FunctionCallInfo,
}

/// What a C function returns.
pub enum Return {
    Null,
    Void,
    Value(Value),
    Text(String),
    /// A row of the declared OUT parameters.
    Record(Vec<Option<Value>>),
}

impl Call {
    fn arg(&self, n: usize) -> Option<Datum> {
        // SAFETY: fcinfo is the live call's; its argument array has nargs entries.
        let args = unsafe { (*self.fcinfo).args.as_slice((*self.fcinfo).nargs as usize) };
        args.get(n).filter(|a| !a.isnull).map(|a| a.value)
    }
    pub fn uuid(&self, n: usize) -> Option<Uuid> {
        self.arg(n).map(value::uuid)
    }
    pub fn oid(&self, n: usize) -> Option<Oid> {
        value::from(self.arg(n))
    }
    pub fn bool(&self, n: usize) -> Option<bool> {
        value::from(self.arg(n))
    }
    pub fn int4(&self, n: usize) -> Option<i32> {
        value::from(self.arg(n))
    }
    pub fn int8(&self, n: usize) -> Option<i64> {
        value::from(self.arg(n))
    }
    pub fn xid8(&self, n: usize) -> Option<u64> {
        self.arg(n).map(|d| d.value() as u64)
    }
    pub fn timestamptz(&self, n: usize) -> Option<i64> {
        self.arg(n).map(|d| d.value() as i64)
    }
    pub fn name(&self, n: usize) -> Option<String> {
        // SAFETY: the argument is a `name`, a NUL-terminated NameData by reference.
        self.arg(n).map(|d| unsafe { name(d) })
    }
    pub fn text(&self, n: usize) -> Option<String> {
        value::from(self.arg(n))
    }

    /// Event and command tag of an event trigger's firing, if that is what this call is.
    pub fn event_trigger(&self) -> Option<(String, String)> {
        // SAFETY: the context is a node where it is set; its tag says which.
        unsafe {
            let data: *mut pg_sys::EventTriggerData = (*self.fcinfo).context.cast();
            if data.is_null() || (*data).type_ != pg_sys::NodeTag::T_EventTriggerData {
                return None;
            }
            let text = |s| CStr::from_ptr(s).to_string_lossy().into_owned();
            Some((text((*data).event), text(pg_sys::GetCommandTagName((*data).tag))))
        }
    }

    /// A name[] without NULL elements.
    pub fn names(&self, n: usize) -> Option<Vec<String>> {
        let text = |d| {
            // SAFETY: an element of a name[].
            unsafe { name(d) }
        };
        self.elements(n, pg_sys::NAMEOID)?.into_iter().map(|d| d.map(text)).collect()
    }

    /// The elements of a uuid[] of any dimensions, in the order in which they are stored.
    pub fn uuids(&self, n: usize) -> Option<Vec<Option<Uuid>>> {
        let elements = self.elements(n, pg_sys::UUIDOID)?;
        Some(elements.into_iter().map(|d| d.map(value::uuid)).collect())
    }

    /// The elements of an array of `element`, NULL as None.
    fn elements(&self, n: usize, element: Oid) -> Option<Vec<Option<Datum>>> {
        Some(Value { datum: self.arg(n)?, oid: Oid::INVALID }.items(element).1)
    }

    /// The result, in the form that fmgr wants.
    pub(super) fn give(&self, r: Return) -> Datum {
        let v = match r {
            Return::Null => None,
            Return::Void => Some(Datum::from(0)),
            Return::Value(v) => Some(v.datum),
            Return::Text(s) => value::into(s, pg_sys::TEXTOID).map(|v| v.datum),
            Return::Record(fields) => Some(self.record(fields)),
        };
        // SAFETY: fcinfo is the live call's.
        unsafe { (*self.fcinfo).isnull = v.is_none() };
        v.unwrap_or(Datum::null())
    }

    fn record(&self, fields: Vec<Option<Value>>) -> Datum {
        let mut values: Vec<Datum> =
            fields.iter().map(|f| f.map_or(Datum::null(), |v| v.datum)).collect();
        let mut nulls: Vec<bool> = fields.iter().map(Option::is_none).collect();
        // SAFETY: the fields match the declared row type (a regress test calls each such function).
        unsafe {
            let (mut oid, mut desc) = (Oid::INVALID, std::ptr::null_mut());
            pg_sys::get_call_result_type(self.fcinfo, &mut oid, &mut desc);
            pg_sys::BlessTupleDesc(desc);
            let tuple = pg_sys::heap_form_tuple(desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)
        }
    }
}

/// A set-returning function's result, spilled to disk above work_mem.
pub struct RowSet {
    store: *mut pg_sys::Tuplestorestate,
    desc: pg_sys::TupleDesc,
}

impl RowSet {
    pub fn new(call: &Call) -> RowSet {
        RowSet::made(call, 0)
    }

    /// Of values, not of rows with columns of their own.
    pub fn of_values(call: &Call) -> RowSet {
        RowSet::made(call, pg_sys::MAT_SRF_USE_EXPECTED_DESC)
    }

    fn made(call: &Call, flags: u32) -> RowSet {
        // SAFETY: called in a set-returning function; the executor owns what is set up here.
        unsafe {
            pg_sys::InitMaterializedSRF(call.fcinfo, flags);
            let info: *mut pg_sys::ReturnSetInfo = (*call.fcinfo).resultinfo.cast();
            RowSet { store: (*info).setResult, desc: (*info).setDesc }
        }
    }

    pub fn put(&mut self, fields: &[Option<Value>]) {
        let mut values: Vec<Datum> =
            fields.iter().map(|f| f.map_or(Datum::null(), |v| v.datum)).collect();
        let mut nulls: Vec<bool> = fields.iter().map(Option::is_none).collect();
        // SAFETY: the fields match the declared row type; the tuplestore copies them.
        unsafe {
            pg_sys::tuplestore_putvalues(
                self.store,
                self.desc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}

impl Value {
    pub fn text(s: &str) -> Option<Value> {
        value::into(s, pg_sys::TEXTOID)
    }
    pub fn texts(v: &[String]) -> Option<Value> {
        value::into(v.to_vec(), pg_sys::TEXTARRAYOID)
    }
    pub fn bool(v: bool) -> Value {
        Value { datum: Datum::from(v), oid: pg_sys::BOOLOID }
    }
    pub fn timestamptz(v: i64) -> Value {
        Value { datum: Datum::from(v), oid: pg_sys::TIMESTAMPTZOID }
    }
    pub fn regclass(v: Oid) -> Value {
        Value { datum: Datum::from(v), oid: pg_sys::REGCLASSOID }
    }
    pub fn regclasses(v: &[Oid]) -> Value {
        let items: Vec<Datum> = v.iter().map(|oid| Datum::from(*oid)).collect();
        value::array(pg_sys::REGCLASSOID, &items)
    }
    pub fn int8(v: i64) -> Value {
        Value { datum: Datum::from(v), oid: pg_sys::INT8OID }
    }
    pub fn float8(v: f64) -> Option<Value> {
        value::into(v, pg_sys::FLOAT8OID)
    }
    pub fn jsonb(v: &serde_json::Value) -> Option<Value> {
        value::into(pgrx::JsonB(v.clone()), pg_sys::JSONBOID)
    }
}

/// # Safety
/// `d` is a `name`.
unsafe fn name(d: Datum) -> String {
    // SAFETY: a NameData is NUL-terminated within its 64 bytes.
    unsafe { CStr::from_ptr(d.cast_mut_ptr()).to_string_lossy().into_owned() }
}
