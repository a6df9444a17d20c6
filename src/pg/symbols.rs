//! The C symbols that sql/profile_cache.sql names. What stands behind them is handed in, so that this room knows
//! nobody above it.
//!
//! Invariant: a symbol of a released version never changes its meaning; a new signature gets a new
//! symbol.

use super::fmgr::{Call, Return};
use pgrx::pg_sys::{self, Datum};
use std::sync::OnceLock;

/// What a function behind a symbol may return: a trigger function a tuple or nothing, never an SQL
/// NULL; any other a [`Return`].
trait Answer {
    fn give(self, call: &Call) -> Datum;
}

impl Answer for Datum {
    fn give(self, _: &Call) -> Datum {
        self
    }
}

impl Answer for Return {
    fn give(self, call: &Call) -> Datum {
        call.give(self)
    }
}

/// Declares C function `$symbol`, handing each call to `$function` of [`Functions`].
macro_rules! entry {
    ($($symbol:ident, $info:ident => $function:ident: $answer:ty;)*) => {
        /// The safe function behind each symbol.
        pub struct Functions {
            $(pub $function: fn(&Call) -> $answer,)*
        }
        $(
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        pub extern "C" fn $info() -> &'static pg_sys::Pg_finfo_record {
            const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        #[doc(hidden)]
        pub unsafe extern "C-unwind" fn $symbol(fcinfo: pg_sys::FunctionCallInfo) -> Datum {
            let call = Call { fcinfo };
            (functions().$function)(&call).give(&call)
        }
        )*
    };
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Says what stands behind the symbols; once, from `_PG_init`, before PostgreSQL can look one up.
pub fn set_functions(functions: Functions) {
    let _ = FUNCTIONS.set(functions);
}

fn functions() -> &'static Functions {
    FUNCTIONS.get().unwrap_or_else(|| pgrx::error!("profile_cache is not initialized"))
}

entry! {
    profile_cache_get_profile, pg_finfo_profile_cache_get_profile => get_profile: Return;
    profile_cache_get_profiles, pg_finfo_profile_cache_get_profiles => get_profiles: Return;
    profile_cache_changed_since, pg_finfo_profile_cache_changed_since => changed_since: Return;
    profile_cache_attach, pg_finfo_profile_cache_attach => attach: Return;
    profile_cache_detach, pg_finfo_profile_cache_detach => detach: Return;
    profile_cache_refresh_begin, pg_finfo_profile_cache_refresh_begin => refresh_begin: Return;
    profile_cache_refresh_step, pg_finfo_profile_cache_refresh_step => refresh_step: Return;
    profile_cache_invalidate, pg_finfo_profile_cache_invalidate => invalidate: Return;
    profile_cache_invalidate_all, pg_finfo_profile_cache_invalidate_all => invalidate_all: Return;
    profile_cache_verify, pg_finfo_profile_cache_verify => verify: Return;
    profile_cache_explain, pg_finfo_profile_cache_explain => explain: Return;
    profile_cache_set_rights, pg_finfo_profile_cache_set_rights => set_rights: Return;
    profile_cache_status, pg_finfo_profile_cache_status => status: Return;
    profile_cache_health, pg_finfo_profile_cache_health => health: Return;
    profile_cache_routes, pg_finfo_profile_cache_routes => routes: Return;
    profile_cache_stats, pg_finfo_profile_cache_stats => stats: Return;
    profile_cache_stats_reset, pg_finfo_profile_cache_stats_reset => stats_reset: Return;
    profile_cache_iso8601, pg_finfo_profile_cache_iso8601 => iso8601: Return;
    profile_cache_on_ddl, pg_finfo_profile_cache_on_ddl => on_ddl: Return;
    profile_cache_attachment_changed, pg_finfo_profile_cache_attachment_changed => attachment_changed: Datum;
    profile_cache_distrust, pg_finfo_profile_cache_distrust => distrust: Datum;
    profile_cache_before_statement, pg_finfo_profile_cache_before_statement => before_statement: Datum;
    profile_cache_after_statement, pg_finfo_profile_cache_after_statement => after_statement: Datum;
}
