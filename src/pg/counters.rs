//! Counters of each database in shared memory, which all its sessions add to and anybody reads.
//!
//! Invariant: atomics alone, and nobody waits. A session adds to one of several places, so that few meet at one; what is read
//! is never less than what was read before, unless it has been reset meanwhile. All zero is the beginning. The memory is the
//! server's own where that has preloaded the library; where it has not, from PostgreSQL 17 on, a named segment, which outlives
//! the library: another layout has another name.

use super::{Oid, shared, xact};
use pgrx::pg_sys;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64};

/// How many counters there is room for.
pub const ROOM: usize = 24;
/// How many databases there is place for.
const DATABASES: usize = 64;
/// How many places the sessions of one database share.
const PLACES: usize = 16;
/// How many past states are kept: the last two, and one that is being written.
const STATES: usize = 3;

/// All of it.
#[repr(C)]
pub struct Counters {
    /// Somebody gives a database its place.
    giving: AtomicBool,
    databases: [Database; DATABASES],
}

/// What is counted in one database. Times are PostgreSQL's microseconds.
#[repr(C, align(64))]
pub struct Database {
    oid: AtomicU32,
    since: AtomicI64,
    /// When the last of its states was kept, and how many have been.
    kept_at: AtomicI64,
    kept: AtomicU64,
    states: [State; STATES],
    places: [Place; PLACES],
}

/// Two sums as they were at some time.
#[repr(C)]
struct State {
    at: AtomicI64,
    sums: [AtomicU64; 2],
}

/// In cache lines of its own.
#[repr(C, align(64))]
struct Place([AtomicU64; ROOM]);

static COUNTERS: AtomicPtr<Counters> = AtomicPtr::new(std::ptr::null_mut());

/// Asks for the memory; once, while the server preloads the library.
pub fn request() {
    shared::request(c"profile_cache counters", size_of::<Counters>(), |memory| {
        COUNTERS.store(memory.cast(), SeqCst);
    });
}

/// None where there is no memory for them, as far as this session has tried.
fn counters() -> Option<&'static Counters> {
    // SAFETY: null, or memory that stays attached as long as the process, and was all zero at first, which is a valid value.
    unsafe { COUNTERS.load(SeqCst).as_ref() }
}

/// Why this database has no counters.
pub enum Missing {
    /// The server has not preloaded the library, and knows no segments by name.
    Memory,
    /// A segment could not be attached.
    Segment,
    /// As many databases as there are places for have one.
    Place,
}

pub fn missing() -> Missing {
    match counters() {
        Some(_) => Missing::Place,
        None if cfg!(any(feature = "pg15", feature = "pg16")) => Missing::Memory,
        None => Missing::Segment,
    }
}

/// Whether a segment can be attached now: not in the middle of a parallel query, which begins no subtransaction.
pub fn can_attach() -> bool {
    // SAFETY: a backend variable.
    unsafe { !pg_sys::IsInParallelMode() }
}

/// Attaches the named segment where there can be one, and nothing has been preloaded. False where that fails. Inside a
/// transaction, whose error it never becomes.
fn attach() -> bool {
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    // SAFETY: a backend variable.
    if counters().is_none() && can_attach() && unsafe { pg_sys::IsUnderPostmaster } {
        // There may be no room for it.
        let memory = xact::subtransaction(segment).unwrap_or(std::ptr::null_mut());
        COUNTERS.store(memory, SeqCst);
    }
    counters().is_some()
}

#[cfg(not(any(feature = "pg15", feature = "pg16")))]
fn segment() -> *mut Counters {
    #[pgrx::pg_guard]
    unsafe extern "C-unwind" fn begin(memory: *mut std::ffi::c_void) {
        // SAFETY: called by the server with the new segment. All zero is a valid value.
        unsafe { std::ptr::write_bytes(memory.cast::<Counters>(), 0, 1) };
    }
    let (name, mut found) = (c"profile_cache counters 1", false);
    // SAFETY: the segment stays attached as long as the process; its beginning is aligned to a page.
    unsafe {
        pg_sys::GetNamedDSMSegment(name.as_ptr(), size_of::<Counters>(), Some(begin), &mut found)
    }
    .cast()
}

/// This database's, if it has a place; asks no catalog, so at any time.
pub fn mine() -> Option<&'static Database> {
    counters()?.of(this_database()?)
}

fn this_database() -> Option<u32> {
    // SAFETY: a backend variable.
    let database = unsafe { pg_sys::MyDatabaseId };
    (database != Oid::INVALID).then(|| database.to_u32())
}

/// Gives this database its place, if it has none: a free one, or that of a database that is no more. None where all are
/// taken, where there is no memory, or where somebody else is at it. Inside a transaction.
pub fn take() -> Option<&'static Database> {
    let mine = this_database()?;
    if !attach() {
        return None;
    }
    let counters = counters()?;
    if let Some(found) = counters.of(mine) {
        return Some(found);
    }
    // The catalogs are asked before anything is held: that may raise.
    let gone = |d: &&Database| {
        let oid = d.oid.load(SeqCst);
        // SAFETY: a cache look-up inside a transaction.
        oid == 0 || unsafe { pg_sys::get_database_name(Oid::from_u32(oid)) }.is_null()
    };
    let place = counters.databases.iter().find(gone)?;
    let before = place.oid.load(SeqCst);
    if counters.giving.swap(true, SeqCst) {
        return None;
    }
    let found = counters.of(mine).or_else(|| {
        // Another one has been given it meanwhile.
        if place.oid.load(SeqCst) != before {
            return None;
        }
        place.begin_anew();
        place.oid.store(mine, SeqCst);
        Some(place)
    });
    counters.giving.store(false, SeqCst);
    found
}

impl Counters {
    fn of(&self, database: u32) -> Option<&Database> {
        self.databases.iter().find(|d| d.oid.load(SeqCst) == database)
    }
}

impl Database {
    /// To what this session adds.
    fn place(&self) -> &Place {
        // SAFETY: a backend variable.
        let pid = unsafe { pg_sys::MyProcPid } as usize;
        &self.places[pid % PLACES]
    }

    /// Adds to the counter of this number.
    pub fn add(&self, counter: usize, n: u64) {
        if let Some(c) = self.place().0.get(counter) {
            c.fetch_add(n, Relaxed);
        }
    }

    /// What has been counted.
    pub fn sums(&self) -> [u64; ROOM] {
        std::array::from_fn(|n| {
            let each = self.places.iter().filter_map(|place| place.0.get(n));
            each.map(|c| c.load(Relaxed)).fold(0, u64::wrapping_add)
        })
    }

    pub fn since(&self) -> i64 {
        self.since.load(SeqCst)
    }

    /// Begins at zero. What others add meanwhile may count or not.
    pub fn begin_anew(&self) {
        self.places.iter().flat_map(|place| &place.0).for_each(|c| c.store(0, SeqCst));
        let now = xact::clock();
        self.since.store(now, SeqCst);
        self.kept_at.store(now, SeqCst);
        self.keep(now, [0, 0]);
        self.keep(now, [0, 0]);
    }

    /// Keeps two sums every so many microseconds, by whoever comes first after that. Where nobody has come for twice as long,
    /// nothing has been added since the last one could have been kept: what was before is none of the recent past.
    pub fn keep_every(&self, period: i64, now: i64, sums: impl Fn() -> [u64; 2]) {
        let last = self.kept_at.load(Relaxed);
        if now < last.saturating_add(period)
            || self.kept_at.compare_exchange(last, now, SeqCst, SeqCst).is_err()
        {
            return;
        }
        let sums = sums();
        self.keep(now, sums);
        if now >= last.saturating_add(2 * period) {
            self.keep(now, sums);
        }
    }

    fn keep(&self, at: i64, sums: [u64; 2]) {
        let number = self.kept.load(SeqCst);
        let state = &self.states[number as usize % STATES];
        state.at.store(at, SeqCst);
        state.sums.iter().zip(sums).for_each(|(to, from)| to.store(from, SeqCst));
        self.kept.store(number.wrapping_add(1), SeqCst);
    }

    /// The last kept state but one: when, and the sums.
    pub fn before_last(&self) -> (i64, [u64; 2]) {
        let number = self.kept.load(SeqCst).wrapping_sub(2);
        let state = &self.states[number as usize % STATES];
        let [a, b] = &state.sums;
        (state.at.load(SeqCst), [a.load(SeqCst), b.load(SeqCst)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> Database {
        Database {
            oid: AtomicU32::new(0),
            since: AtomicI64::new(0),
            kept_at: AtomicI64::new(0),
            kept: AtomicU64::new(0),
            states: std::array::from_fn(|_| State {
                at: AtomicI64::new(0),
                sums: std::array::from_fn(|_| AtomicU64::new(0)),
            }),
            places: std::array::from_fn(|_| Place(std::array::from_fn(|_| AtomicU64::new(0)))),
        }
    }

    #[test]
    fn the_last_state_but_one_is_one_to_two_periods_old() {
        let d = new();
        d.keep(100, [0, 0]);
        d.keep(100, [0, 0]);
        d.kept_at.store(100, SeqCst);
        let at = |now, sums| {
            d.keep_every(10, now, || sums);
            d.before_last()
        };
        assert_eq!(at(109, [5, 1]), (100, [0, 0]));
        assert_eq!(at(110, [6, 1]), (100, [0, 0]));
        assert_eq!(at(119, [9, 1]), (100, [0, 0]));
        assert_eq!(at(121, [9, 2]), (110, [6, 1]));
        assert_eq!(at(139, [12, 2]), (121, [9, 2]));
        // Nobody has come for two periods: nothing of before is recent.
        assert_eq!(at(160, [12, 2]), (160, [12, 2]));
        assert_eq!(at(169, [14, 2]), (160, [12, 2]));
    }

    #[test]
    fn whoever_comes_second_keeps_nothing() {
        let d = new();
        d.keep_every(10, 10, || [1, 1]);
        let kept = d.kept.load(SeqCst);
        d.keep_every(10, 10, || [2, 2]);
        assert_eq!(d.kept.load(SeqCst), kept);
    }
}
