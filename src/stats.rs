//! What is counted: reads from the cache and from the view, and why; documents computed, and how long that took; what was left
//! pending, failed, and was told to listeners.
//!
//! Invariant: to count is to add to this process's own numbers, which takes nothing and raises nothing. At the end of each
//! transaction they are handed over to the database's, in shared memory. What a transaction did counts, also where it is rolled
//! back. Where there is no place to hand them to, nobody is told a number.

use crate::pg::counters::{self, Database, Missing};
use crate::pg::xact;
use crate::settings;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::Instant;

/// Its number is its place in shared memory: another order is another layout (`pg/counters.rs`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// Documents served from the cache.
    Hits,
    /// Documents read from the view, by the reason.
    NotCached,
    Expired,
    Pending,
    InTransaction,
    FromFuture,
    Disabled,
    Unhealthy,
    /// Reads that had to ask first whether row security shows the row; hits and misses alike.
    RowSecurity,
    /// How long reading the view took.
    OnReadNanos,
    /// Documents computed at commit and stored, and how long that took.
    AtCommit,
    AtCommitNanos,
    ByRefresh,
    ByWorker,
    /// How many were made.
    PendingKeys,
    PendingEpochs,
    Failures,
    /// Of rows, and of tables, that a commit or refresh did without.
    LocksNotHad,
    Notifications,
}

/// So many there are.
const NUMBER: usize = Counter::Notifications as usize + 1;
const _: () = assert!(NUMBER <= counters::ROOM);

/// The reasons of misses.
pub const MISSES: [Counter; 7] = [
    Counter::NotCached,
    Counter::Expired,
    Counter::Pending,
    Counter::InTransaction,
    Counter::FromFuture,
    Counter::Disabled,
    Counter::Unhealthy,
];

/// This process's own, which nobody else sees: what it has counted since it last handed over.
static OWN: [AtomicU64; NUMBER] = [const { AtomicU64::new(0) }; NUMBER];
/// To whom it hands over.
static MINE: OnceLock<&'static Database> = OnceLock::new();
/// When it asks again for a place, having got none.
static ASK_AT: AtomicI64 = AtomicI64::new(0);
/// This process is a background worker of ours.
static WORKER: AtomicBool = AtomicBool::new(false);

/// How long a session that got no place waits before it asks again, in microseconds.
const AGAIN: i64 = 10_000_000;
/// Every so many microseconds hits and misses are kept, for [`recent`].
const PERIOD: i64 = 300_000_000;

pub fn add(counter: Counter, n: u64) {
    // Not as one instruction: nobody adds to it but this process.
    if settings::track()
        && let Some(own) = OWN.get(counter as usize)
    {
        own.store(own.load(Relaxed).wrapping_add(n), Relaxed);
    }
}

pub fn count(counter: Counter) {
    add(counter, 1);
}

/// Counts how long it lives, in nanoseconds, also where an error ends it.
pub struct Timed {
    counter: Counter,
    began: Option<Instant>,
}

pub fn timed(counter: Counter) -> Timed {
    Timed { counter, began: settings::track().then(Instant::now) }
}

impl Drop for Timed {
    fn drop(&mut self) {
        if let Some(began) = self.began {
            add(self.counter, u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// This process is a background worker: what it refreshes counts as that.
pub fn is_worker() {
    WORKER.store(true, Relaxed);
}

/// So many documents have been computed by refresh and stored.
pub fn refreshed(documents: u64) {
    let by_worker = WORKER.load(Relaxed);
    add(if by_worker { Counter::ByWorker } else { Counter::ByRefresh }, documents);
}

fn something() -> bool {
    OWN.iter().any(|own| own.load(Relaxed) > 0)
}

/// To whom this process hands over; it asks for a place where it has none yet. Inside a transaction.
fn place() -> Option<&'static Database> {
    if let Some(found) = mine() {
        return Some(found);
    }
    let now = xact::statement_began();
    if now < ASK_AT.load(Relaxed) || !counters::can_attach() {
        return None;
    }
    if counters::take().is_none() {
        ASK_AT.store(now + AGAIN, Relaxed);
    }
    mine()
}

/// The same where it asks nobody.
fn mine() -> Option<&'static Database> {
    MINE.get().copied().or_else(|| {
        let found = counters::mine()?;
        Some(*MINE.get_or_init(|| found))
    })
}

/// Before a transaction's end, when catalogs can still be asked: sees to it that there is a place to hand over to.
pub fn prepare() {
    if MINE.get().is_none() && something() {
        place();
    }
}

/// At a transaction's end, however it ends: hands over what this process has counted.
pub fn hand_over() {
    if !something() {
        return;
    }
    let Some(mine) = mine() else { return };
    // Before anything is added: it is what there was until now.
    mine.keep_every(PERIOD, xact::statement_began(), || hits_and_misses(&mine.sums()));
    for (n, own) in OWN.iter().enumerate() {
        let counted = own.load(Relaxed);
        if counted > 0 {
            own.store(0, Relaxed);
            mine.add(n, counted);
        }
    }
}

type Sums = [u64; counters::ROOM];

fn of(sums: &Sums, counter: Counter) -> u64 {
    sums.get(counter as usize).copied().unwrap_or(0)
}

fn hits_and_misses(sums: &Sums) -> [u64; 2] {
    let misses = MISSES.into_iter().map(|c| of(sums, c));
    [of(sums, Counter::Hits), misses.fold(0, u64::wrapping_add)]
}

/// What has been counted in this database.
pub struct Totals {
    pub hits: u64,
    pub misses: u64,
    /// Since when, in PostgreSQL's microseconds.
    pub since: i64,
    sums: Sums,
}

impl Totals {
    pub fn of(&self, counter: Counter) -> u64 {
        of(&self.sums, counter)
    }
}

/// None where nothing is counted: there is no place for it, or this session is told not to. Inside a transaction.
pub fn totals() -> Option<Totals> {
    let mine = place().filter(|_| settings::track())?;
    let sums = mine.sums();
    let [hits, misses] = hits_and_misses(&sums);
    Some(Totals { hits, misses, since: mine.since(), sums })
}

/// Reads of the last minutes.
pub struct Recent {
    pub hits: u64,
    pub misses: u64,
    /// Since when: five to ten minutes ago, or since anything was counted, if that is later.
    pub since: i64,
}

/// The same of the last five to ten minutes.
pub fn recent() -> Option<Recent> {
    let mine = place().filter(|_| settings::track())?;
    let [hits, misses] = hits_and_misses(&mine.sums());
    mine.keep_every(PERIOD, xact::clock(), || [hits, misses]);
    let (since, [hits_then, misses_then]) = mine.before_last();
    Some(Recent {
        hits: hits.saturating_sub(hits_then),
        misses: misses.saturating_sub(misses_then),
        since,
    })
}

/// Everything that is counted in this database begins at zero. False where nothing is counted.
pub fn reset() -> bool {
    let found = place();
    OWN.iter().for_each(|own| own.store(0, Relaxed));
    if let Some(mine) = found {
        mine.begin_anew();
    }
    found.is_some()
}

/// What keeps this session from counting, though it is to count; and what helps.
pub fn missing() -> Option<(&'static str, &'static str)> {
    // In the middle of a parallel query nobody can tell.
    (settings::track() && counters::can_attach() && place().is_none()).then(why)
}

/// Why there is no place to hand over to, and what helps.
pub fn why() -> (&'static str, &'static str) {
    match counters::missing() {
        Missing::Memory => (
            "PostgreSQL 15 and 16 have no memory for it without the library in shared_preload_libraries",
            "add profile_cache there and restart the server, or set profile_cache.track = off",
        ),
        Missing::Segment => (
            "no dynamic shared memory could be had",
            "add profile_cache to shared_preload_libraries and restart the server, or set profile_cache.track = off",
        ),
        Missing::Place => (
            "as many databases are counted as there are places for",
            "where counters are not wanted, set profile_cache.track = off; then restart the server",
        ),
    }
}
