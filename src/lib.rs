//! profile_cache keeps each user's profile as ready JSON in `user_profile.cached_profile` and hands
//! it out with `get_profile(uuid)`: one indexed read, never stale. README.md and docs/ say how to use it,
//! ARCHITECTURE.md why it is never stale.

mod api;
mod attach;
mod attachment;
mod blockers;
mod definition;
mod document;
mod entry;
mod error;
mod failures;
mod iso8601;
mod monitor;
mod pending;
mod pg;
mod proof;
mod query_tree;
mod read;
mod refresh;
mod rights;
mod settings;
mod stats;
mod wakeup;
mod worker;
mod write;
mod xact_state;

pgrx::pg_module_magic!();

pgrx::extension_sql_file!("../sql/profile_cache.sql", name = "profile_cache", bootstrap);

/// Runs when a backend loads the library.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    entry::init();
}
