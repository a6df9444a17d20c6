//! The settings, as `SHOW` and `postgresql.conf` know them.

use crate::pg::guard;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static NOTIFY: GucSetting<bool> = GucSetting::<bool>::new(false);
static MAX_IMMEDIATE: GucSetting<i32> = GucSetting::<i32>::new(1000);

/// Registers the settings; once, from `_PG_init`.
pub fn define() {
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

/// `profile_cache.enabled`.
pub fn enabled() -> bool {
    ENABLED.get()
}

/// `profile_cache.notify`.
pub fn notify() -> bool {
    NOTIFY.get()
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
