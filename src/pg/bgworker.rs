//! Background processes: the launcher, which the server starts, and workers, which the launcher starts.
//!
//! Invariant: SIGTERM cancels what a process does and lets it end by itself, with exit code 0 for a worker; every wait ends
//! with the server, and what the server asks of all processes meanwhile (a barrier, invalidations, a reload) is done there.
//!
//! Rules: B3, B7, B8.

use super::locks::Turn;
use super::shared::wake_myself;
use super::spi::ActiveSnapshot;
use super::xact::Failure;
use super::{Oid, xact};
use pgrx::pg_guard;
use pgrx::pg_sys::GucContext::PGC_SUSET;
use pgrx::pg_sys::{self, Datum, PgTryBuilder};
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

/// What the processes do.
pub struct Entrances {
    pub launcher: fn(),
    /// The number that it was started with.
    pub worker: fn(usize),
}

static ENTRANCES: OnceLock<Entrances> = OnceLock::new();
/// SIGTERM has come.
static TERMINATED: AtomicBool = AtomicBool::new(false);

/// The superuser whom initdb has made (pg_authid.dat).
const BOOTSTRAP: Oid = Oid::from_u32(10);

/// How long the server waits before it starts the launcher again, should that fail, in seconds.
const RESTART: c_int = 5;

/// Whether the server is loading its `shared_preload_libraries`, and not for pg_upgrade, which wants nobody beside it.
pub fn preloading() -> bool {
    // SAFETY: backend variables.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade }
}

/// Registers the launcher; once, while the server preloads the library. It runs where the server writes: not on a standby,
/// before that is promoted.
pub fn register(entrances: Entrances) {
    let _ = ENTRANCES.set(entrances);
    let mut launcher = described(c"profile_cache launcher", c"profile_cache launcher");
    write(&mut launcher.bgw_function_name, c"profile_cache_launcher_main");
    launcher.bgw_restart_time = RESTART;
    // SAFETY: the server copies it.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut launcher) };
}

fn described(name: &CStr, kind: &CStr) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION)
            as c_int,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        ..Default::default()
    };
    write(&mut worker.bgw_name, name);
    write(&mut worker.bgw_type, kind);
    // As the SQL functions name it, so that both are the same.
    write(&mut worker.bgw_library_name, c"profile_cache");
    worker
}

/// Copies a text into a field, as much of it as there is room for beside the zero at its end.
fn write(field: &mut [c_char], text: &CStr) {
    let room = field.len().saturating_sub(1);
    for (to, from) in field.iter_mut().take(room).zip(text.to_bytes()) {
        *to = *from as c_char;
    }
}

/// A worker that this process has started.
pub struct Started {
    handle: *mut pg_sys::BackgroundWorkerHandle,
}

/// Starts a worker; None where the server has no room for one more.
pub fn start(number: usize, name: &str) -> Option<Started> {
    let name = CString::new(name).unwrap_or_default();
    let mut worker = described(&name, c"profile_cache worker");
    write(&mut worker.bgw_function_name, c"profile_cache_worker_main");
    worker.bgw_restart_time = pg_sys::BGW_NEVER_RESTART;
    worker.bgw_main_arg = Datum::from(number);
    let mut handle = std::ptr::null_mut();
    // SAFETY: the server copies the description; the handle lives until it is dropped.
    let there = unsafe {
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let there = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
        pg_sys::MemoryContextSwitchTo(context);
        there
    };
    there.then(|| Started { handle })
}

impl Started {
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle is the one that the server gave.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.handle, &mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // SAFETY: allocated by the server for us.
        unsafe { pg_sys::pfree(self.handle.cast()) };
    }
}

#[unsafe(no_mangle)]
#[pg_guard]
#[doc(hidden)]
pub unsafe extern "C-unwind" fn profile_cache_launcher_main(_arg: Datum) {
    begin();
    if let Some(entrances) = ENTRANCES.get() {
        unless_terminated(entrances.launcher);
    }
    // As PostgreSQL's own launcher of logical replication: with 0 the server would never start it again.
    // SAFETY: ends the process, as returning would.
    unsafe { pg_sys::proc_exit(1) };
}

#[unsafe(no_mangle)]
#[pg_guard]
#[doc(hidden)]
pub unsafe extern "C-unwind" fn profile_cache_worker_main(number: Datum) {
    begin();
    if let Some(entrances) = ENTRANCES.get() {
        unless_terminated(|| (entrances.worker)(number.value()));
    }
}

/// The errors of a process that has been told to end are the end itself.
fn unless_terminated(work: impl FnOnce()) {
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|error| {
            if !is_terminated() {
                error.rethrow();
            }
        })
        .execute();
}

fn begin() {
    // SAFETY: handlers that do what a handler may; signals have been blocked so far.
    unsafe {
        handle(pg_sys::SIGTERM, on_term);
        handle(pg_sys::SIGHUP, on_hup);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// # Safety
/// The handler must do nothing but what a signal handler may.
unsafe fn handle(signal: u32, handler: unsafe extern "C-unwind" fn(c_int)) {
    // SAFETY: the caller's.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal as c_int, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal as c_int, Some(handler));
    }
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// SIGTERM: a running query is cancelled, as by pg_cancel_backend(), a wait ends.
unsafe extern "C-unwind" fn on_term(_: c_int) {
    // SAFETY: variables that handlers are to set; what was interrupted finds its errno as it was.
    unsafe {
        let errno = *__errno_location();
        TERMINATED.store(true, SeqCst);
        pg_sys::QueryCancelPending = 1;
        pg_sys::InterruptPending = 1;
        wake_myself();
        *__errno_location() = errno;
    }
}

/// SIGHUP: settings are read anew at the next occasion.
unsafe extern "C-unwind" fn on_hup(_: c_int) {
    // SAFETY: as above.
    unsafe {
        let errno = *__errno_location();
        pg_sys::ConfigReloadPending = 1;
        wake_myself();
        *__errno_location() = errno;
    }
}

pub fn is_terminated() -> bool {
    TERMINATED.load(SeqCst)
}

/// Waits until it is woken, so many milliseconds at the most.
pub fn wait(milliseconds: Option<i64>) {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH;
    if milliseconds.is_some() {
        events |= pg_sys::WL_TIMEOUT;
    }
    let timeout = milliseconds.unwrap_or(-1).clamp(-1, 3_600_000);
    // SAFETY: this process's own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as c_int, timeout, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    interrupts();
}

/// What the server asks of this process, between two transactions. True where settings have been read anew. A cancel is of no
/// query here, and would be an error that ends the process in the middle of what it has to write down.
pub fn interrupts() -> bool {
    // SAFETY: backend variables; an error that is raised meanwhile resets the count by itself.
    unsafe { pg_sys::QueryCancelHoldoffCount += 1 };
    crate::error::check_interrupts();
    // SAFETY: as above. A SIGTERM that has come meanwhile is seen by who asks for it next.
    unsafe {
        pg_sys::QueryCancelHoldoffCount -= 1;
        pg_sys::QueryCancelPending = 0;
    }
    // SAFETY: outside of a transaction.
    unsafe {
        pg_sys::ProcessCatchupInterrupt();
        let reload = pg_sys::ConfigReloadPending != 0;
        if reload {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        reload
    }
}

/// Connects this process to a database as the bootstrap superuser, or to none, which is enough to read what all share.
/// Whatever a database's own `session_authorization` says.
pub fn connect(database: Option<Oid>) {
    // SAFETY: once, in a background process with signals unblocked.
    unsafe {
        match database {
            Some(oid) => {
                pg_sys::BackgroundWorkerInitializeConnectionByOid(oid, Oid::INVALID, 0);
                if pg_sys::GetSessionUserId() != BOOTSTRAP {
                    pg_sys::StartTransactionCommand();
                    let name = pg_sys::GetUserNameFromId(BOOTSTRAP, false);
                    set(&[(c"session_authorization", CStr::from_ptr(name))]);
                    pg_sys::CommitTransactionCommand();
                }
            }
            None => {
                pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0)
            }
        }
    }
}

/// Sets, for this process, what neither a role's settings nor a reload change. What this server does not know is left out.
pub fn set(settings: &[(&CStr, &CStr)]) {
    for (name, value) in settings {
        // SAFETY: constant C strings.
        unsafe {
            if !pg_sys::GetConfigOption(name.as_ptr(), true, false).is_null() {
                pg_sys::SetConfigOption(
                    name.as_ptr(),
                    value.as_ptr(),
                    PGC_SUSET,
                    pg_sys::GucSource::PGC_S_OVERRIDE,
                );
            }
        }
    }
}

/// Has `then` called with `number` when this process ends, however it does; once it counts as connected to no database any more.
pub fn at_exit(then: unsafe extern "C-unwind" fn(c_int, Datum), number: usize) {
    // SAFETY: the function lives as long as the library.
    unsafe { pg_sys::on_shmem_exit(Some(then), Datum::from(number)) };
}

/// Does `work` in a transaction of its own, which pg_stat_activity shows as `what`; what it raises rolls that back.
pub fn transaction<R>(what: &CStr, work: impl FnOnce() -> R) -> Result<R, Failure> {
    // SAFETY: outside of a transaction; committed or aborted on every path below.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, what.as_ptr());
        pg_sys::StartTransactionCommand();
    }
    let done = PgTryBuilder::new(AssertUnwindSafe(|| {
        let done = {
            let _snapshot = ActiveSnapshot::new();
            work()
        };
        // SAFETY: begun above, and left at its outermost level.
        unsafe { pg_sys::CommitTransactionCommand() };
        Ok(done)
    }))
    .catch_others(|error| {
        // SAFETY: whatever state it is in.
        unsafe { pg_sys::AbortCurrentTransaction() };
        Err(Failure::of(error))
    })
    .execute();
    // SAFETY: between two transactions.
    unsafe {
        pg_sys::pgstat_report_stat(false);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    done
}

/// Whether another session waits for what this one holds as its turn: for DDL on what that is a lock of.
pub fn turn_is_waited_for() -> bool {
    let held = Turn::tag().filter(Turn::is_held);
    // SAFETY: asked only of a lock that is held.
    held.is_some_and(|tag| unsafe { pg_sys::LockHasWaiters(&tag, Turn::LOCK, true) })
}

/// The databases that can be connected to: names and numbers.
pub fn databases() -> Vec<(String, Oid)> {
    let mut found = vec![];
    // SAFETY: inside a transaction; the table is closed again. Without an index: a process that is connected to no database may
    // not know of any yet, and could not look it up.
    unsafe {
        let mode = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, mode);
        let none = std::ptr::null_mut();
        let scan =
            pg_sys::systable_beginscan(table, Oid::INVALID, false, none, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            // -2: what a DROP DATABASE has left that was interrupted.
            if row.datallowconn && row.datconnlimit != -2 {
                let name = CStr::from_ptr(row.datname.data.as_ptr());
                found.push((name.to_string_lossy().into_owned(), row.oid));
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, mode);
    }
    found
}

/// The name of this session's database.
pub fn database_name() -> Option<String> {
    // SAFETY: a catalog look-up inside a transaction; a palloc'd C string or NULL.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Whether the server is a standby, or still recovers.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Milliseconds from now to a time, none below 0.
pub fn until(at: i64) -> i64 {
    at.saturating_sub(xact::clock()).max(0).saturating_add(999) / 1000
}
