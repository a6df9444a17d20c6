//! Transactions: callbacks, subtransactions, command ids.
//!
//! Invariant: whoever keeps something for a transaction ([`Callbacks`]) is told of each end of it and of its
//! subtransactions, exactly once.

use super::Oid;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::{self, PgTryBuilder, panic::CaughtError, panic::ErrorReport};
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_guard};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_void};
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;

/// Who is told of what happens to the transaction and in the catalogs. They neither panic nor register anything.
pub struct Callbacks {
    /// Before a transaction commits or is prepared, behind its last deferred trigger.
    pub before_commit_or_prepare: fn(),
    /// Before it commits, after the above.
    pub before_commit: fn(),
    /// It has been committed, and others see what it did.
    pub committed: fn(),
    /// It has been committed, aborted or prepared.
    pub ended: fn(),
    pub subtransaction_aborted: fn(pg_sys::SubTransactionId),
    /// One, and its parent.
    pub subtransaction_committed: fn(pg_sys::SubTransactionId, pg_sys::SubTransactionId),
    /// What the catalogs say of a relation may have changed; of any, where it is InvalidOid.
    pub relation_changed: fn(Oid),
}

static CALLBACKS: OnceLock<Callbacks> = OnceLock::new();

thread_local! {
    static PREPARING: Cell<bool> = const { Cell::new(false) };
}

/// Of a transaction at its end: whether it is being prepared. What it remembers then, nobody will.
pub fn is_being_prepared() -> bool {
    PREPARING.get()
}

/// Registers the backend's callbacks; once, from `_PG_init`.
pub fn register_callbacks(callbacks: Callbacks) {
    let _ = CALLBACKS.set(callbacks);
    // SAFETY: the callbacks live as long as the library; they neither panic nor call back.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relcache), pg_sys::Datum::from(0));
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::SUBSCRIPTIONRELMAP as i32,
            Some(on_syscache),
            pg_sys::Datum::from(0),
        );
        // Of a schema that is renamed no relation tells.
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
            Some(on_syscache),
            pg_sys::Datum::from(0),
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    let Some(callbacks) = CALLBACKS.get() else { return };
    if matches!(event, XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE) {
        PREPARING.set(event == XACT_EVENT_PRE_PREPARE);
        (callbacks.before_commit_or_prepare)();
    }
    if event == XACT_EVENT_PRE_COMMIT {
        (callbacks.before_commit)();
    }
    if event == XACT_EVENT_COMMIT {
        (callbacks.committed)();
    }
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        (callbacks.ended)();
    }
}

/// Does the work that is left at COMMIT, with a snapshot, also in a transaction that has been made read only since it
/// wrote.
pub fn before_commit(work: fn()) {
    // Behind the last deferred trigger: nothing that is done here may queue one.
    let _snapshot = super::spi::ActiveSnapshot::new();
    // SAFETY: a backend variable, put back here, or by the abort that an error brings.
    let read_only = unsafe { pg_sys::XactReadOnly };
    // SAFETY: as above.
    unsafe { pg_sys::XactReadOnly = false };
    super::value::scratch(work);
    // SAFETY: as above.
    unsafe { pg_sys::XactReadOnly = read_only };
}

#[pg_guard]
unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    mine: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    let Some(callbacks) = CALLBACKS.get() else { return };
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => (callbacks.subtransaction_aborted)(mine),
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            (callbacks.subtransaction_committed)(mine, parent);
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_relcache(_arg: pg_sys::Datum, relation: Oid) {
    if let Some(callbacks) = CALLBACKS.get() {
        (callbacks.relation_changed)(relation);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_syscache(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    if let Some(callbacks) = CALLBACKS.get() {
        (callbacks.relation_changed)(Oid::INVALID);
    }
}

pub fn subtransaction_id() -> u32 {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

/// Whether the transaction keeps one snapshot: REPEATABLE READ or SERIALIZABLE.
pub fn has_one_snapshot() -> bool {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// The transaction's `now()`, in microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// When the client's statement began: the time without asking the clock.
pub fn statement_began() -> i64 {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

pub fn clock() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The next full transaction id: greater than every one handed out so far.
pub fn next_full_xid() -> u64 {
    // SAFETY: takes and releases a lightweight lock; works during recovery too.
    unsafe { pg_sys::ReadNextFullTransactionId().value }
}

/// Why a subtransaction was rolled back.
pub struct Failure {
    pub sqlstate: String,
    error: Box<CaughtError>,
}

impl Failure {
    /// Of an error that has rolled back what raised it.
    pub(super) fn of(error: CaughtError) -> Failure {
        let code = match &error {
            CaughtError::PostgresError(e) | CaughtError::ErrorReport(e) => e.sql_error_code(),
            CaughtError::RustPanic { ereport, .. } => ereport.sql_error_code(),
        };
        Failure { sqlstate: sqlstate(code), error: Box::new(error) }
    }

    fn report(&self) -> &pg_sys::panic::ErrorReportWithLevel {
        let (CaughtError::PostgresError(e)
        | CaughtError::ErrorReport(e)
        | CaughtError::RustPanic { ereport: e, .. }) = &*self.error;
        e
    }

    /// Writes it into the server's log: what failed, and why.
    pub fn log(&self, what: &str) {
        let e = self.report();
        let message = format!("{what}: {}", e.message());
        let mut report = ErrorReport::new(e.sql_error_code(), message, "");
        if let Some(detail) = e.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = e.hint() {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::LOG);
    }

    /// What the error says: its code, message, detail and hint.
    pub fn said(&self) -> (PgSqlErrorCode, String, Option<String>, Option<String>) {
        let e = self.report();
        let text = |t: Option<&str>| t.map(str::to_owned);
        (e.sql_error_code(), e.message().to_owned(), text(e.detail()), text(e.hint()))
    }

    /// Passes the error on as it was.
    pub fn raise(self) -> ! {
        (*self.error).rethrow()
    }

    /// Whether the server has ended the transaction, or soon will: a cancel, a timeout or a shutdown that
    /// it has noticed (postgres.c), a serialization failure (predicate.c), a deadlock (deadlock.c). Code
    /// that a view calls may raise the same SQLSTATEs; it does so elsewhere.
    fn is_server_s(&self) -> bool {
        const SOURCES: [&str; 3] = ["postgres.c", "predicate.c", "deadlock.c"];
        let file = self.report().file().rsplit('/').next().unwrap_or_default();
        matches!(&self.sqlstate[..2], "40" | "57") && SOURCES.contains(&file)
    }
}

/// Runs `f` in a subtransaction. What the code in it raises, whatever it is, rolls it back and is returned;
/// what the server does to the transaction is not ours to swallow and passes through.
pub fn subtransaction<R>(f: impl FnOnce() -> R) -> Result<R, Failure> {
    attempt(f).map_err(|failure| {
        if failure.is_server_s() {
            failure.raise();
        }
        failure
    })
}

/// Runs `f` in a subtransaction; any error rolls it back and is returned.
pub fn attempt<R>(f: impl FnOnce() -> R) -> Result<R, Failure> {
    within(f, false)
}

/// The same of what only looks: what it has locked is given back.
pub fn look<R>(f: impl FnOnce() -> R) -> Result<R, Failure> {
    within(f, true)
}

fn within<R>(f: impl FnOnce() -> R, undo: bool) -> Result<R, Failure> {
    // SAFETY: saved to be restored after the subtransaction, as PL/pgSQL does.
    let (context, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    // SAFETY: released or rolled back on every path below.
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
    }
    let restore = move || {
        // SAFETY: both outlive the subtransaction.
        unsafe {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    PgTryBuilder::new(AssertUnwindSafe(|| {
        let r = f();
        // SAFETY: the subtransaction begun above is the current one.
        unsafe {
            if undo {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            } else {
                pg_sys::ReleaseCurrentSubTransaction();
            }
        }
        restore();
        Ok(r)
    }))
    .catch_others(move |error| {
        let failure = Failure::of(error);
        // Also before passing an error on: whoever catches it ends the subtransaction that is
        // current then, and must find its own.
        // SAFETY: the failed subtransaction is the current one.
        unsafe { pg_sys::RollbackAndReleaseCurrentSubTransaction() };
        restore();
        Err(failure)
    })
    .execute()
}

// commands/async.h, which pgrx 0.18 does not bind.
unsafe extern "C-unwind" {
    fn Async_Notify(channel: *const std::ffi::c_char, payload: *const std::ffi::c_char);
}

/// NOTIFY, sent when the transaction commits; one of equal messages is enough.
pub fn notify(channel: &CStr, payload: &str) {
    let payload = CString::new(payload).unwrap_or_default();
    // SAFETY: both strings are copied during the call.
    unsafe { pg_guard_ffi_boundary(|| Async_Notify(channel.as_ptr(), payload.as_ptr())) };
}

/// Sleeps, but for a cancel.
pub fn sleep(milliseconds: i64) {
    // SAFETY: a plain sleep; interrupts are looked at after it.
    unsafe { pg_sys::pg_usleep(milliseconds * 1000) };
    crate::error::check_interrupts();
}

/// The five characters of an SQLSTATE (elog.h's MAKE_SQLSTATE, six bits a character).
pub fn sqlstate(code: PgSqlErrorCode) -> String {
    sqlstate_of(code as u32)
}

/// The number of an SQLSTATE.
pub fn sqlstate_number(sqlstate: &str) -> u32 {
    let bits = |c: u8| u32::from(c.wrapping_sub(b'0') & 0x3f);
    sqlstate.bytes().rev().fold(0, |n, c| n << 6 | bits(c))
}

/// The SQLSTATE of a number.
pub fn sqlstate_of(mut n: u32) -> String {
    (0..5)
        .map(|_| {
            let c = char::from(((n & 0x3f) as u8) + b'0');
            n >>= 6;
            c
        })
        .collect()
}
