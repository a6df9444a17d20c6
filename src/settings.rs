//! The settings, as `SHOW` and `postgresql.conf` know them.

use crate::pg::guard;
use crate::pg::shared::HELPERS;
use pgrx::PostgresGucEnum;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;

/// Who computes the documents of what a transaction has changed, one by one.
#[derive(PostgresGucEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compute {
    /// It does, at its end.
    Commit,
    /// The background worker, after it. It does itself where there is none.
    Worker,
}

static COMPUTE: GucSetting<Compute> = GucSetting::<Compute>::new(Compute::Commit);
static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static NOTIFY: GucSetting<bool> = GucSetting::<bool>::new(false);
static TRACK: GucSetting<bool> = GucSetting::<bool>::new(true);
static MAX_IMMEDIATE: GucSetting<i32> = GucSetting::<i32>::new(1000);
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static BATCH_MS: GucSetting<i32> = GucSetting::<i32>::new(100);
static REFRESH_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);
static FILL_SHARE: GucSetting<i32> = GucSetting::<i32>::new(50);

/// Registers the settings; once, from `_PG_init`.
pub fn define() {
    define_those_of_sessions();
    define_those_of_the_server();
}

fn define_those_of_sessions() {
    GucRegistry::define_bool_guc(
        c"profile_cache.enabled",
        c"Serves stored documents.",
        c"When off, get_profile always reads the document view; maintenance goes on.",
        &ENABLED,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"profile_cache.notify",
        c"Notifies channel profile_cache of changed documents.",
        c"The payload is the user's id, or * where more may have changed. A prepared transaction notifies nothing.",
        &NOTIFY,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"profile_cache.track",
        c"Counts what profile_cache.stats shows.",
        c"When off, this session counts nothing.",
        &TRACK,
        // As track_activities: who is counted does not decide it.
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"profile_cache.compute",
        c"Who computes the documents that a transaction has changed: it, at its commit, or the background worker, after it.",
        c"Until the worker has computed a document, it is read from the view. Where there is no worker, commits compute.",
        &COMPUTE,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"profile_cache.max_immediate",
        c"Number of profiles that one transaction refreshes itself when it commits.",
        c"One that touches more names them for CALL profile_cache.refresh().",
        &MAX_IMMEDIATE,
        0,
        100_000,
        // Whoever sets it low makes everybody's reads wait for refresh.
        GucContext::Suset,
        GucFlags::default(),
    );
}

fn define_those_of_the_server() {
    GucRegistry::define_string_guc(
        c"profile_cache.databases",
        c"Databases that a background worker keeps refreshed, separated by commas.",
        c"The library must be in shared_preload_libraries. A name with a comma in it is written in double quotes.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"profile_cache.batch_ms",
        c"How long a step of refresh may take, and so keep its profiles' rows locked.",
        c"The next step takes as many profiles as the last one shows to fit.",
        &BATCH_MS,
        10,
        10_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"profile_cache.refresh_workers",
        c"How many background workers refresh one database where there is much to do.",
        c"Each takes one of max_worker_processes while it works.",
        &REFRESH_WORKERS,
        1,
        HELPERS as i32 + 1,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"profile_cache.fill_share",
        c"Percentage of its time that the background worker spends on filling.",
        c"Filling is computing what has never been computed, or everybody anew. What an edit concerns, and what is read, does not wait.",
        &FILL_SHARE,
        1,
        100,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// `profile_cache.refresh_workers`, in processes.
pub fn refresh_workers() -> usize {
    usize::try_from(REFRESH_WORKERS.get()).unwrap_or(1)
}

/// `profile_cache.databases`, where it is not empty.
pub fn databases() -> Option<String> {
    let list = DATABASES.get()?;
    Some(list.to_string_lossy().into_owned()).filter(|list| !list.trim().is_empty())
}

/// `profile_cache.batch_ms`, in microseconds.
pub fn batch() -> i64 {
    i64::from(BATCH_MS.get()) * 1000
}

/// `profile_cache.fill_share`, in percent.
pub fn fill_share() -> i64 {
    i64::from(FILL_SHARE.get())
}

/// `profile_cache.enabled`.
pub fn enabled() -> bool {
    ENABLED.get()
}

/// `profile_cache.compute`.
pub fn compute() -> Compute {
    COMPUTE.get()
}

/// `profile_cache.notify`.
pub fn notify() -> bool {
    NOTIFY.get()
}

/// `profile_cache.track`.
pub fn track() -> bool {
    TRACK.get()
}

/// `profile_cache.max_immediate`, in profiles.
pub fn max_immediate() -> usize {
    usize::try_from(MAX_IMMEDIATE.get()).unwrap_or(0)
}

/// Whether `shared_preload_libraries` names the library.
pub fn preloaded() -> bool {
    guard::setting(c"shared_preload_libraries").is_some_and(|list| {
        list.split(',').any(|l| l.trim().trim_matches('"').ends_with("profile_cache"))
    })
}
