//! The C symbols that sql/profile_cache.sql names, each with the safe function behind it.
//!
//! Invariant: a symbol of a released version never changes its meaning; a new signature gets a new
//! symbol.

use super::fmgr::{Call, Return};
use crate::attach::ddl;
use crate::{api, write};
use pgrx::pg_sys::{self, Datum};

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

/// Declares C function `$symbol`, handing each call to `$function`.
macro_rules! entry {
    ($($symbol:ident, $info:ident => $function:path;)*) => {$(
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
            $function(&call).give(&call)
        }
    )*};
}

entry! {
    profile_cache_get_profile, pg_finfo_profile_cache_get_profile => api::get_profile;
    profile_cache_attach, pg_finfo_profile_cache_attach => api::attach;
    profile_cache_detach, pg_finfo_profile_cache_detach => api::detach;
    profile_cache_refresh_begin, pg_finfo_profile_cache_refresh_begin => api::refresh_begin;
    profile_cache_refresh_step, pg_finfo_profile_cache_refresh_step => api::refresh_step;
    profile_cache_invalidate, pg_finfo_profile_cache_invalidate => api::invalidate;
    profile_cache_invalidate_all, pg_finfo_profile_cache_invalidate_all => api::invalidate_all;
    profile_cache_verify, pg_finfo_profile_cache_verify => api::verify;
    profile_cache_explain, pg_finfo_profile_cache_explain => api::explain;
    profile_cache_set_rights, pg_finfo_profile_cache_set_rights => api::set_rights;
    profile_cache_status, pg_finfo_profile_cache_status => api::status;
    profile_cache_iso8601, pg_finfo_profile_cache_iso8601 => api::iso8601;
    profile_cache_on_ddl, pg_finfo_profile_cache_on_ddl => ddl::on_ddl;
    profile_cache_attachment_changed, pg_finfo_profile_cache_attachment_changed
        => write::attachment_changed;
    profile_cache_distrust, pg_finfo_profile_cache_distrust => write::distrust;
    profile_cache_before_statement, pg_finfo_profile_cache_before_statement
        => write::before_statement;
    profile_cache_after_statement, pg_finfo_profile_cache_after_statement
        => write::after_statement;
}
