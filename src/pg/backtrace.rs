//! No backtraces in errors.
//!
//! With RUST_BACKTRACE in the server's environment every error that passes through Rust, the view's own too, would
//! grow pages of it as DETAIL, shown to whoever reads a profile. Invariant: whether it is there changes nothing.

use std::backtrace::Backtrace;
use std::env;

/// CachedRow at before RUST_BACKTRACE.
const NAME: &str = "RUST_LIB_BACKTRACE";

/// Once, from `_PG_init`, before the first error. The standard library looks at the environment once and remembers
/// what it has seen; each library has its own copy of it. So other extensions and child processes find the
/// environment as it was.
pub fn switch_off() {
    if ["RUST_BACKTRACE", NAME].iter().all(|n| env::var_os(n).is_none()) {
        return;
    }
    let was = env::var_os(NAME);
    // SAFETY: a backend has one thread, and so has the postmaster, where the library may be loaded for all.
    unsafe { env::set_var(NAME, "0") };
    drop(Backtrace::capture());
    // SAFETY: as above.
    unsafe {
        match was {
            Some(value) => env::set_var(NAME, value),
            None => env::remove_var(NAME),
        }
    }
}
