//! SQL from Rust: kept plans, and an explicit choice of the snapshot each statement sees.
//!
//! Invariant: which snapshot a statement runs in is part of the protocol (W4, W5), so it
//! is always named by [`Snapshot`] and never left to whether the transaction has an XID.

use super::value::{self, Uuid, Value};
use pgrx::pg_sys::{self, Datum, Oid};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;

/// The snapshot that a statement runs in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Snapshot {
    /// A new command: a new snapshot at READ COMMITTED, the transaction's at REPEATABLE READ, with
    /// this transaction's own earlier effects. The only one that may write or lock.
    New,
    /// The active snapshot, read only: that of the calling query, or of a [`ActiveSnapshot`] one.
    Active,
    /// The newest committed state, read only, whatever the isolation level.
    Latest,
}

/// One statement parameter.
pub struct Arg {
    oid: Oid,
    datum: Option<Datum>,
}

impl Arg {
    pub fn value(v: Value) -> Arg {
        Arg { oid: v.oid, datum: Some(v.datum) }
    }
    pub fn int8(v: Option<i64>) -> Arg {
        Arg { oid: pg_sys::INT8OID, datum: v.map(Datum::from) }
    }
    pub fn int8s(v: &[i64]) -> Arg {
        let items: Vec<Datum> = v.iter().map(|n| Datum::from(*n)).collect();
        Arg::value(value::array(pg_sys::INT8OID, &items))
    }
    pub fn float4(v: f32) -> Arg {
        Arg { oid: pg_sys::FLOAT4OID, datum: value::into(v, pg_sys::FLOAT4OID).map(|v| v.datum) }
    }
    pub fn bool(v: bool) -> Arg {
        Arg { oid: pg_sys::BOOLOID, datum: Some(Datum::from(v)) }
    }
    pub fn oid(v: Oid) -> Arg {
        Arg { oid: pg_sys::OIDOID, datum: Some(Datum::from(v)) }
    }
    pub fn oids(v: &[Oid]) -> Arg {
        let items: Vec<Datum> = v.iter().map(|o| Datum::from(*o)).collect();
        Arg::value(value::array(pg_sys::OIDOID, &items))
    }
    pub fn text(v: &str) -> Arg {
        Arg { oid: pg_sys::TEXTOID, datum: value::into(v, pg_sys::TEXTOID).map(|v| v.datum) }
    }
    /// A text, or NULL.
    pub fn optional_text(v: Option<&str>) -> Arg {
        match v {
            Some(v) => Arg::text(v),
            None => Arg { oid: pg_sys::TEXTOID, datum: None },
        }
    }
    pub fn timestamptz(v: Option<i64>) -> Arg {
        Arg { oid: pg_sys::TIMESTAMPTZOID, datum: v.map(Datum::from) }
    }
    pub fn texts(v: &[String]) -> Arg {
        let items: Vec<Datum> = v
            .iter()
            .filter_map(|s| value::into(s.as_str(), pg_sys::TEXTOID).map(|v| v.datum))
            .collect();
        Arg::value(value::array(pg_sys::TEXTOID, &items))
    }
    pub fn uuid(v: Option<&Uuid>) -> Arg {
        Arg { oid: pg_sys::UUIDOID, datum: v.map(|u| Value::uuid(u).datum) }
    }
    pub fn uuids(v: &[Uuid]) -> Arg {
        let items: Vec<Datum> = v.iter().map(|u| Value::uuid(u).datum).collect();
        Arg::value(value::array(pg_sys::UUIDOID, &items))
    }
}

/// One result row, alive during the closure that receives it. Columns count from 1.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    desc: pg_sys::TupleDesc,
}

impl Row {
    fn datum(&self, column: i32) -> Option<Datum> {
        let mut null = false;
        // SAFETY: tuple and descriptor belong to the SPI result that the caller is iterating.
        let d = unsafe { pg_sys::SPI_getbinval(self.tuple, self.desc, column, &mut null) };
        (!null).then_some(d)
    }

    fn column_type(&self, column: i32) -> Oid {
        // SAFETY: the descriptor belongs to the SPI result; an absent column has no type.
        unsafe { pg_sys::SPI_gettypeid(self.desc, column) }
    }

    /// The column's datum, which must be of this type: a view or a column of ours may have been
    /// changed under us, and a datum read as another type is a wild pointer.
    pub(super) fn typed(&self, column: i32, oid: Oid) -> Option<Datum> {
        let is = self.column_type(column);
        if is != oid {
            let what =
                format!("Column {column} of a query on it is of type {is}, not {oid} (OIDs).");
            crate::error::Error::DocumentBroken(what).raise();
        }
        self.datum(column)
    }

    pub fn int8(&self, column: i32) -> Option<i64> {
        value::from(self.typed(column, pg_sys::INT8OID))
    }
    pub fn bool(&self, column: i32) -> Option<bool> {
        value::from(self.typed(column, pg_sys::BOOLOID))
    }
    pub fn oid(&self, column: i32) -> Option<Oid> {
        value::from(self.typed(column, pg_sys::OIDOID))
    }
    /// Microseconds since 2000-01-01 UTC.
    pub fn timestamptz(&self, column: i32) -> Option<i64> {
        self.typed(column, pg_sys::TIMESTAMPTZOID).map(|d| d.value() as i64)
    }
    /// Any type's text form; text itself as it is.
    pub fn text(&self, column: i32) -> Option<String> {
        let oid = self.column_type(column);
        let datum = self.datum(column)?;
        if oid == pg_sys::TEXTOID {
            value::from(Some(datum))
        } else {
            Some(Value { datum, oid }.to_text())
        }
    }
    pub fn texts(&self, column: i32) -> Option<Vec<String>> {
        value::from::<Vec<Option<String>>>(self.typed(column, pg_sys::TEXTARRAYOID))
            .map(|v| v.into_iter().flatten().collect())
    }
    pub fn uuid(&self, column: i32) -> Option<Uuid> {
        self.typed(column, pg_sys::UUIDOID).map(value::uuid)
    }
    pub fn tid(&self, column: i32) -> Option<pg_sys::ItemPointerData> {
        // SAFETY: the column is a tid, by reference.
        self.typed(column, pg_sys::TIDOID)
            .map(|d| unsafe { *d.cast_mut_ptr::<pg_sys::ItemPointerData>() })
    }
    /// A document, as it is stored.
    pub fn jsonb(&self, column: i32) -> Option<Value> {
        self.typed(column, pg_sys::JSONBOID)?;
        self.value(column)
    }
    /// The value as it is, copied to the memory context of the SPI connection's caller.
    pub fn value(&self, column: i32) -> Option<Value> {
        // SAFETY: the descriptor has this column; SPI copies to its caller's context.
        unsafe {
            let oid = pg_sys::SPI_gettypeid(self.desc, column);
            let s = value::TypeLayout::of(oid);
            self.datum(column).map(|d| Value {
                datum: pg_sys::SPI_datumTransfer(d, s.by_value, i32::from(s.len)),
                oid,
            })
        }
    }
}

/// An SPI connection. Not closed while unwinding: the abort that follows does it.
struct Connection;

impl Connection {
    fn open() -> Connection {
        if !super::guard::Guard::is_there() {
            // The one way to run SQL is a guard: nothing of ours runs as the caller by mistake.
            crate::error::Error::Internal("SQL outside of a guard".into()).raise();
        }
        // SAFETY: paired with SPI_finish in Drop, or with the (sub)transaction's abort.
        unsafe { pg_sys::SPI_connect() };
        OPEN.set(OPEN.get() + 1);
        Connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        OPEN.set(OPEN.get() - 1);
        if !std::thread::panicking() {
            // SAFETY: opened by `open`, and connections nest like the frames that hold them.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

/// A kept plan, and what beside its text it was made for.
struct Kept {
    types: Vec<Oid>,
    planned: Planned,
    plan: pg_sys::SPIPlanPtr,
}

thread_local! {
    /// Plans by statement text. Names in generated texts change only with the attachment, which
    /// clears this map where it has grown; PostgreSQL revalidates the plans themselves.
    static PLANS: RefCell<HashMap<String, Vec<Kept>>> = RefCell::default();
    /// Connections of ours that are open, any of which may be running a kept plan.
    static OPEN: Cell<u32> = const { Cell::new(0) };
}

/// Forgets every kept plan where there are many: the attachment changed, and some texts may never be used again.
/// Most are of the catalogs and of our own tables, and stay what they are.
pub fn forget_plans() {
    const MANY: usize = 200;
    let few = PLANS.with(|p| p.try_borrow().map_or(true, |p| p.len() < MANY));
    if few || OPEN.get() > 0 {
        return;
    }
    let plans = PLANS.with(|p| p.try_borrow_mut().map(|mut p| std::mem::take(&mut *p)));
    for kept in plans.unwrap_or_default().into_values().flatten() {
        // SAFETY: kept by `plan` below and now unreachable.
        unsafe { pg_sys::SPI_freeplan(kept.plan) };
    }
}

/// Whether a statement's plan knows its parameters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planned {
    AsPostgresSees,
    OnceForAll,
    EachTime,
}

/// A statement's text, and how it is planned.
#[derive(Clone, Copy)]
pub struct Statement<'a> {
    text: &'a str,
    planned: Planned,
}

impl<'a, T: AsRef<str> + ?Sized> From<&'a T> for Statement<'a> {
    fn from(text: &'a T) -> Statement<'a> {
        Statement { text: text.as_ref(), planned: Planned::AsPostgresSees }
    }
}

/// A statement that goes to a few rows by an index whatever its parameters are: without a plan of
/// its own for each call (planning the document view takes longer than running it for one key).
pub fn point(text: &str) -> Statement<'_> {
    Statement { text, planned: Planned::OnceForAll }
}

/// A statement that is planned for its parameters each time: arrays that may be long, which a plan that does not
/// know them takes for ten elements; a position that may be NULL, which only its value makes a condition of an index.
pub fn planned_anew(text: &str) -> Statement<'_> {
    Statement { text, planned: Planned::EachTime }
}

fn plan(statement: Statement, args: &[Arg]) -> pg_sys::SPIPlanPtr {
    let matches =
        |k: &Kept| k.planned == statement.planned && k.types.iter().eq(args.iter().map(|a| &a.oid));
    let known = PLANS.with(|p| {
        p.borrow().get(statement.text).and_then(|v| v.iter().find(|k| matches(k)).map(|k| k.plan))
    });
    if let Some(plan) = known {
        return plan;
    }
    let mut types: Vec<Oid> = args.iter().map(|a| a.oid).collect();
    let text = CString::new(statement.text).unwrap_or_default();
    let options = match statement.planned {
        Planned::AsPostgresSees => 0,
        Planned::OnceForAll => pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
        Planned::EachTime => pg_sys::CURSOR_OPT_CUSTOM_PLAN as i32,
    };
    // SAFETY: text and types live through the call; the plan is moved to permanent memory.
    let plan = unsafe {
        let n = types.len() as i32;
        let plan = pg_sys::SPI_prepare_cursor(text.as_ptr(), n, types.as_mut_ptr(), options);
        pg_sys::SPI_keepplan(plan);
        plan
    };
    let kept = Kept { types, planned: statement.planned, plan };
    PLANS.with(|m| m.borrow_mut().entry(statement.text.to_owned()).or_default().push(kept));
    plan
}

/// Runs one statement and hands each row to `each`. Its plan is kept by its text and parameter
/// types. Returns the number of rows processed.
pub fn query<'a>(
    statement: impl Into<Statement<'a>>,
    at: Snapshot,
    args: &[Arg],
    mut each: impl FnMut(&Row),
) -> u64 {
    let _connection = Connection::open();
    let plan = plan(statement.into(), args);
    let (mut values, nulls) = bound(args);
    // SAFETY: values and nulls match the plan's parameters; results are read before SPI_finish.
    unsafe {
        let rc = match at {
            Snapshot::Latest => {
                // As a catalog look-up would see it, afresh: also allowed during a parallel query.
                pg_sys::InvalidateCatalogSnapshot();
                let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetCatalogSnapshot(Oid::INVALID));
                let rc = pg_sys::SPI_execute_snapshot(
                    plan,
                    values.as_mut_ptr(),
                    nulls.as_ptr(),
                    snapshot,
                    std::ptr::null_mut(),
                    true,
                    false,
                    0,
                );
                pg_sys::UnregisterSnapshot(snapshot);
                rc
            }
            _ => pg_sys::SPI_execute_plan(
                plan,
                values.as_mut_ptr(),
                nulls.as_ptr(),
                at == Snapshot::Active,
                0,
            ),
        };
        if rc < 0 {
            crate::error::Error::Internal(format!("SPI returned {rc}")).raise();
        }
        let (table, n) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed);
        if !table.is_null() {
            for i in 0..n as usize {
                each(&Row { tuple: *(*table).vals.add(i), desc: (*table).tupdesc });
            }
        }
        n
    }
}

/// Runs a query in a new snapshot and hands its rows' values to `each`, so many at a time: of however many there are, no more
/// are in memory at once. What `each` does is not seen by it.
pub fn in_parts<'a, T>(
    statement: impl Into<Statement<'a>>,
    args: &[Arg],
    size: usize,
    read: impl Fn(&Row) -> T,
    mut each: impl FnMut(Vec<T>),
) {
    let _connection = Connection::open();
    let plan = plan(statement.into(), args);
    let (mut values, nulls) = bound(args);
    // SAFETY: values and nulls match the plan's parameters, and are copied; each part's rows are read before the next is
    // fetched. The portal is closed here, or by the abort.
    unsafe {
        let none = std::ptr::null();
        let portal =
            pg_sys::SPI_cursor_open(none, plan, values.as_mut_ptr(), nulls.as_ptr(), false);
        loop {
            crate::error::check_interrupts();
            pg_sys::SPI_cursor_fetch(portal, true, size as std::ffi::c_long);
            let (table, n) = (pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize);
            let row = |i: usize| Row { tuple: *(*table).vals.add(i), desc: (*table).tupdesc };
            let part: Vec<T> = (0..n).map(|i| read(&row(i))).collect();
            pg_sys::SPI_freetuptable(table);
            if !part.is_empty() {
                each(part);
            }
            if n < size {
                break;
            }
        }
        pg_sys::SPI_cursor_close(portal);
    }
}

/// Arguments as SPI takes them: the values, and which of them are NULL.
fn bound(args: &[Arg]) -> (Vec<Datum>, Vec<std::ffi::c_char>) {
    let values = args.iter().map(|a| a.datum.unwrap_or(Datum::null())).collect();
    let nulls = args.iter().map(|a| if a.datum.is_some() { b' ' } else { b'n' } as _).collect();
    (values, nulls)
}

/// The first row's value, if there is a row.
pub fn one<'a, T>(
    statement: impl Into<Statement<'a>>,
    at: Snapshot,
    args: &[Arg],
    read: impl Fn(&Row) -> T,
) -> Option<T> {
    let mut found = None;
    query(statement, at, args, |row| {
        if found.is_none() {
            found = Some(read(row));
        }
    });
    found
}

/// Every row's value.
pub fn all<'a, T>(
    statement: impl Into<Statement<'a>>,
    at: Snapshot,
    args: &[Arg],
    read: impl Fn(&Row) -> T,
) -> Vec<T> {
    let mut found = Vec::new();
    query(statement, at, args, |row| found.push(read(row)));
    found
}

/// A statement that writes and returns nothing of interest.
pub fn run<'a>(statement: impl Into<Statement<'a>>, args: &[Arg]) -> u64 {
    query(statement, Snapshot::New, args, |_| ())
}

/// A statement used once (DDL): its plan is not kept.
pub fn utility(sql: &str) {
    let _connection = Connection::open();
    let text = CString::new(sql).unwrap_or_default();
    // SAFETY: text lives through the call.
    let rc = unsafe { pg_sys::SPI_execute(text.as_ptr(), false, 0) };
    if rc < 0 {
        crate::error::Error::Internal(format!("SPI returned {rc}")).raise();
    }
}

/// A new command's snapshot, made active: several [`Snapshot::Active`] statements, under several
/// identities, then see exactly the same state.
pub struct ActiveSnapshot(());

impl ActiveSnapshot {
    pub fn new() -> ActiveSnapshot {
        // SAFETY: popped in Drop, or by the abort.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        ActiveSnapshot(())
    }
}

impl Drop for ActiveSnapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: pushed by `new`; guards drop in reverse order of pushing.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}

/// Whether the calling procedure may COMMIT here.
pub fn may_commit() -> bool {
    // SAFETY: reads SPI's own state, and the transaction's.
    unsafe {
        pg_sys::SPI_inside_nonatomic_context() && pg_sys::GetCurrentTransactionNestLevel() == 1
    }
}
