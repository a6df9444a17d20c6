//! What sessions, background workers and their launcher tell each other through shared memory.
//!
//! Invariant: atomics alone, which no process can leave half written. Each is a hint: one that is lost, late or torn costs time
//! and nothing else. All zero is the beginning: nobody is there, nothing is wanted. Only where the server has preloaded the
//! library is there any of it.

use super::Oid;
use pgrx::{pg_guard, pg_sys};
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_void};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64};

/// How many databases there is place for.
pub const SLOTS: usize = 16;
/// How many processes a database may have beside its worker.
pub const HELPERS: usize = 7;
/// How many keys a slot holds, and how many of them one key may be at.
pub const PLACES: usize = 4096;
const WAYS: usize = 4;

/// All of it.
#[repr(C)]
pub struct Board {
    pub launcher: Process,
    /// The launcher is to look at the list of databases anew, and when a session last asked for that.
    pub look: AtomicBool,
    pub asked_at: AtomicI64,
    pub slots: [Slot; SLOTS],
}

/// A background process that others wake.
#[repr(C)]
pub struct Process {
    pid: AtomicI32,
    latch: AtomicPtr<pg_sys::Latch>,
}

/// What there is of one database. Times are PostgreSQL's microseconds.
#[repr(C)]
pub struct Slot {
    database: AtomicU32,
    pub worker: Process,
    /// Those that share its work while there is much of it.
    pub helpers: [Process; HELPERS],
    /// Something has been made pending, or is left to do.
    pub wanted: AtomicBool,
    /// When there will be something to do, as far as is known.
    pub next_at: AtomicI64,
    /// No worker is to begin before.
    pub not_before: AtomicI64,
    /// Nobody is to be connected until then.
    pub let_go_until: AtomicI64,
    /// What the worker does, by its own numbers; with which SQLSTATE it failed last, and how often in a row.
    pub state: AtomicU32,
    pub sqlstate: AtomicU32,
    pub failures: AtomicU32,
    /// Some keys are noted, about how many, and where.
    pub noted: AtomicBool,
    number: AtomicU32,
    places: [Place; PLACES],
    /// How often what was told may have been lost: the whole table is to be looked through.
    pub lost: AtomicU32,
    /// Since it has been given to its database, nobody has asked what was told before.
    pub fresh: AtomicBool,
}

/// Where one key can be noted.
#[repr(C)]
struct Place {
    state: AtomicU32,
    key: [AtomicU64; 2],
}

const FREE: u32 = 0;
const BUSY: u32 = 1;
/// A key that a reader has missed, and one of a profile that nothing else speaks of.
const MISSED: u32 = 2;
const TOLD: u32 = 3;

/// What became of a key that was to be noted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is the first one since they were taken last: nobody has been told of any yet.
    First,
    BesideOthers,
    /// There was no place for it.
    Lost,
}

static BOARD: AtomicPtr<Board> = AtomicPtr::new(std::ptr::null_mut());

/// None where the server has not preloaded the library.
pub fn board() -> Option<&'static Board> {
    // SAFETY: null, or the segment that `startup` has attached, which is there as long as the process; all zero is a valid Board.
    unsafe { BOARD.load(SeqCst).as_ref() }
}

/// Memory that has been asked for: its name, its size, and who is told where it is.
type Wanted = (&'static CStr, usize, fn(*mut c_void));

thread_local! {
    static BEFORE: Cell<(pg_sys::shmem_request_hook_type, pg_sys::shmem_startup_hook_type)> = const { Cell::new((None, None)) };
    static WANTED: RefCell<Vec<Wanted>> = const { RefCell::new(Vec::new()) };
}

/// Asks for the memory of the board; once, while the server preloads the library.
pub fn request_board() {
    request(c"profile_cache", size_of::<Board>(), |memory| BOARD.store(memory.cast(), SeqCst));
}

/// Asks for memory that is all zero at the server's start, while it preloads the library.
pub(super) fn request(name: &'static CStr, size: usize, attached: fn(*mut c_void)) {
    let first = WANTED.with_borrow_mut(|wanted| {
        wanted.push((name, size, attached));
        wanted.len() == 1
    });
    if !first {
        return;
    }
    // SAFETY: the postmaster has one thread; the hooks that were there are called by ours.
    unsafe {
        BEFORE.set((pg_sys::shmem_request_hook, pg_sys::shmem_startup_hook));
        pg_sys::shmem_request_hook = Some(reserve);
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn reserve() {
    // SAFETY: called by the server where memory may be asked for.
    unsafe {
        if let Some(before) = BEFORE.get().0 {
            before();
        }
        for (_, size, _) in WANTED.with_borrow(Vec::clone) {
            pg_sys::RequestAddinShmemSpace(size);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: called by the server once the memory is there; the lock is AddinShmemInitLock (lwlocknames.h).
    unsafe {
        if let Some(before) = BEFORE.get().1 {
            before();
        }
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(21)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        for (name, size, attached) in WANTED.with_borrow(Vec::clone) {
            let mut found = false;
            let memory = pg_sys::ShmemInitStruct(name.as_ptr(), size, &mut found);
            if !found {
                std::ptr::write_bytes(memory.cast::<u8>(), 0, size);
            }
            attached(memory);
        }
        pg_sys::LWLockRelease(lock);
    }
}

// storage/latch.h. Not by way of pgrx: from a signal handler, and at every commit that wakes somebody.
unsafe extern "C-unwind" {
    fn SetLatch(latch: *mut pg_sys::Latch);
}

unsafe extern "C" {
    fn kill(pid: i32, signal: i32) -> i32;
}

/// Sets this process's own latch; from a signal handler too.
pub(super) fn wake_myself() {
    // SAFETY: a backend variable; the latch is this process's as long as that lives.
    unsafe { SetLatch(pg_sys::MyLatch) };
}

impl Process {
    /// This process is the one. False where another is.
    pub fn enter(&self) -> bool {
        // SAFETY: backend variables.
        let (pid, latch) = unsafe { (pg_sys::MyProcPid, pg_sys::MyLatch) };
        if self.pid.compare_exchange(0, pid, SeqCst, SeqCst).is_err() {
            return false;
        }
        self.latch.store(latch, SeqCst);
        true
    }

    /// And no longer, if it was.
    pub fn leave(&self) {
        if self.is_me() {
            self.latch.store(std::ptr::null_mut(), SeqCst);
            self.pid.store(0, SeqCst);
        }
    }

    /// Wakes it; false where nobody is there. To wake who has just left is harmless.
    pub fn wake(&self) -> bool {
        let latch = self.latch.load(SeqCst);
        if !latch.is_null() {
            // SAFETY: a latch of the server's own array of processes, in shared memory as long as the server runs.
            unsafe { SetLatch(latch) };
        }
        !latch.is_null()
    }

    /// Has it end, whatever it does, as PostgreSQL has an autovacuum worker end that is in the way.
    fn terminate(&self) {
        let pid = self.pid.load(SeqCst);
        // SAFETY: asks for the process of that number, which is one of the server's; SIGTERM is what any of them ends by.
        unsafe {
            if pid != 0 && !pg_sys::BackendPidGetProc(pid).is_null() {
                kill(pid, pg_sys::SIGTERM as i32);
            }
        }
    }

    pub fn is_there(&self) -> bool {
        self.pid.load(SeqCst) != 0
    }

    pub fn is_me(&self) -> bool {
        // SAFETY: a backend variable.
        self.pid.load(SeqCst) == unsafe { pg_sys::MyProcPid }
    }
}

impl Board {
    /// The slot of a database.
    pub fn of(&self, database: Oid) -> Option<&Slot> {
        self.slots.iter().find(|s| s.is_of(database))
    }

    /// That of this session's.
    pub fn mine(&self) -> Option<&Slot> {
        // SAFETY: a backend variable.
        let database = unsafe { pg_sys::MyDatabaseId };
        if database == Oid::INVALID { None } else { self.of(database) }
    }
}

impl Slot {
    /// None where it is free.
    pub fn database(&self) -> Option<Oid> {
        Some(Oid::from_u32(self.database.load(SeqCst))).filter(|oid| *oid != Oid::INVALID)
    }

    pub fn is_of(&self, database: Oid) -> bool {
        self.database.load(SeqCst) == database.to_u32()
    }

    /// Gives it to a database, as if that had never had one; it has something to do.
    pub fn give_to(&self, database: Oid) {
        self.next_at.store(i64::MAX, SeqCst);
        for number in [&self.not_before, &self.let_go_until] {
            number.store(0, SeqCst);
        }
        for number in [&self.state, &self.sqlstate, &self.failures] {
            number.store(0, SeqCst);
        }
        self.take_keys();
        self.lost.store(0, SeqCst);
        self.fresh.store(true, SeqCst);
        self.wanted.store(true, SeqCst);
        self.database.store(database.to_u32(), SeqCst);
    }

    /// It is free. Whoever is still there leaves.
    pub fn free(&self) {
        self.database.store(0, SeqCst);
        self.terminate();
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.worker).chain(&self.helpers)
    }

    /// Has its worker and those that help it end.
    pub fn terminate(&self) {
        self.processes().for_each(Process::terminate);
    }

    /// Their process ids.
    pub fn pids(&self) -> Vec<i32> {
        self.processes().map(|p| p.pid.load(SeqCst)).filter(|pid| *pid != 0).collect()
    }

    /// Whether this process is one of them.
    pub fn is_mine(&self) -> bool {
        self.processes().any(Process::is_me)
    }

    /// Notes a key, at one of few places of its own, so that one that is noted a thousand times is there once, and nobody waits
    /// for anybody. `told`: nothing else speaks of it.
    pub fn note(&self, key: u128, told: bool) -> Noted {
        let halves = [(key >> 64) as u64, key as u64];
        let hash = (halves[0] ^ halves[1]).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let first = hash as usize % (PLACES / WAYS) * WAYS;
        let places = self.places.get(first..first + WAYS).unwrap_or_default();
        if !places.iter().any(|place| place.holds(halves, told)) {
            if !places.iter().any(|place| place.put(halves, told)) {
                return Noted::Lost;
            }
            self.number.fetch_add(1, SeqCst);
        }
        let first = !self.noted.load(SeqCst) && !self.noted.swap(true, SeqCst);
        if first { Noted::First } else { Noted::BesideOthers }
    }

    /// Whether there is room for many more keys.
    pub fn has_room(&self) -> bool {
        (self.number.load(SeqCst) as usize) < PLACES / 8
    }

    /// The noted keys, which are forgotten, and which of them were told.
    pub fn take_keys(&self) -> Vec<(u128, bool)> {
        self.noted.store(false, SeqCst);
        self.number.store(0, SeqCst);
        self.places.iter().filter_map(Place::take).collect()
    }
}

impl Place {
    fn is(&self, key: [u64; 2]) -> bool {
        self.key[0].load(SeqCst) == key[0] && self.key[1].load(SeqCst) == key[1]
    }

    /// Whether the key stands here, and as told where it is.
    fn holds(&self, key: [u64; 2], told: bool) -> bool {
        match self.state.load(SeqCst) {
            // It may be taken, and another key be put here, before it is marked: that one is merely marked, too.
            MISSED if told && self.is(key) => {
                self.state.compare_exchange(MISSED, TOLD, SeqCst, SeqCst).is_ok() && self.is(key)
            }
            state @ (MISSED | TOLD) => self.is(key) && self.state.load(SeqCst) == state,
            _ => false,
        }
    }

    fn put(&self, key: [u64; 2], told: bool) -> bool {
        if self.state.compare_exchange(FREE, BUSY, SeqCst, SeqCst).is_err() {
            return false;
        }
        self.key[0].store(key[0], SeqCst);
        self.key[1].store(key[1], SeqCst);
        self.state.store(if told { TOLD } else { MISSED }, SeqCst);
        true
    }

    fn take(&self) -> Option<(u128, bool)> {
        let taken = |state| {
            self.state.compare_exchange(state, BUSY, SeqCst, SeqCst).is_ok().then_some(state)
        };
        // It may become a told one between.
        let state = taken(MISSED).or_else(|| taken(TOLD))?;
        let [high, low] = [0, 1].map(|half| self.key[half].load(SeqCst));
        self.state.store(FREE, SeqCst);
        Some((u128::from(high) << 64 | u128::from(low), state == TOLD))
    }
}
