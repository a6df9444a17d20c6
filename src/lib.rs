//! profile_cache keeps each user's profile as ready JSON in `user_profile.cached_profile` and hands
//! it out with `get_profile(uuid)`: one indexed read, never stale. README.md says how to use it,
//! ARCHITECTURE.md why it is never stale.

mod advice;
mod api;
mod attach;
mod attachment;
mod blockers;
mod closure;
mod conventional;
mod ddl;
mod discovery;
mod document;
mod error;
mod functions;
mod links;
mod one_row;
mod pending;
mod pg;
mod proof;
mod query;
mod read;
mod refresh;
mod report;
mod rights;
mod routes;
mod session;
mod settings;
mod tables;
mod time;
mod triggers;

pgrx::pg_module_magic!();

pgrx::extension_sql_file!("../sql/profile_cache.sql", name = "profile_cache", bootstrap);

/// Runs when a backend loads the library.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    pg::backtrace::switch_off();
    pg::xact::register_callbacks();
}
