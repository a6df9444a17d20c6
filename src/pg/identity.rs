//! Whose rights and which settings our SQL runs with.
//!
//! Invariant: user-written SQL (the document view) runs only as the tables' owner, in a
//! security-restricted operation, under pinned settings; our own tables are written only as their
//! owner, with no user-written SQL in between.

use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, CString};

/// Another current user, until dropped.
pub struct Identity {
    user: Oid,
    context: i32,
}

impl Identity {
    /// `user`, restricted: no SET ROLE, no temporary objects, nothing that outlives the operation.
    pub fn restricted(user: Oid) -> Identity {
        Identity::switch(
            user,
            (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION) as i32,
        )
    }

    /// `user`, who may also run DDL (attach and detach).
    pub fn local(user: Oid) -> Identity {
        Identity::switch(user, pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32)
    }

    fn switch(user: Oid, flags: i32) -> Identity {
        let mut before = Identity {
            user: Oid::INVALID,
            context: 0,
        };
        // SAFETY: saved here, restored in Drop or by the (sub)transaction's abort.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut before.user, &mut before.context);
            pg_sys::SetUserIdAndSecContext(user, before.context | flags);
        }
        before
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // SAFETY: the values that `switch` saved. Also right while unwinding.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

/// A user and a security context (SECURITY_* flags of miscadmin.h).
pub type Context = (Oid, i32);

/// Those in force now.
pub fn security_context() -> Context {
    let (mut user, mut context) = (Oid::INVALID, 0);
    // SAFETY: out parameters.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut user, &mut context) };
    (user, context)
}

pub fn current_user() -> Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetUserId() }
}

/// Every setting that can change what an IMMUTABLE or STABLE built-in prints, and its pinned value;
/// search_path last.
const PINNED: [(&CStr, &CStr); 14] = [
    (c"TimeZone", c"UTC"),
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"array_nulls", c"on"),
    (c"timezone_abbreviations", c"Default"),
    (c"lc_monetary", c"C"),
    (c"lc_numeric", c"C"),
    (c"lc_time", c"C"),
    (c"xmlbinary", c"base64"),
    (c"xmloption", c"content"),
    (c"quote_all_identifiers", c"off"),
    (c"search_path", c"pg_catalog, pg_temp"),
];

/// Pinned settings, until dropped. Only those that differ are switched.
pub struct Pinned {
    level: Option<i32>,
}

impl Pinned {
    pub fn new() -> Pinned {
        Pinned::these(&PINNED)
    }

    fn these(settings: &[(&CStr, &CStr)]) -> Pinned {
        let mut pinned = Pinned { level: None };
        for &(name, value) in settings {
            // SAFETY: constant C strings; the setting goes back at AtEOXact_GUC or at abort.
            unsafe {
                let now = pg_sys::GetConfigOption(name.as_ptr(), true, false);
                if !now.is_null() && same(name, CStr::from_ptr(now), value) {
                    continue;
                }
                if pinned.level.is_none() {
                    pinned.level = Some(pg_sys::NewGUCNestLevel());
                }
                set(name, value, pg_sys::GucAction::GUC_ACTION_SAVE);
            }
        }
        pinned
    }

    /// `search_path` alone: built-ins, and nobody's own operators or functions.
    pub fn path() -> Pinned {
        Pinned::these(&PINNED[PINNED.len() - 1..])
    }

    /// One setting alone, for attach's `lock_timeout`.
    pub fn with(name: &CStr, value: &str) -> Pinned {
        let value = CString::new(value).unwrap_or_default();
        // SAFETY: as in `new`.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            set(name, &value, pg_sys::GucAction::GUC_ACTION_SAVE);
            Pinned { level: Some(level) }
        }
    }
}

/// Whether a setting's value is as good as the pinned one. C.UTF-8 is C but for its character types,
/// which none of the pinned categories is (glibc's localedata/locales/C).
fn same(name: &CStr, now: &CStr, pinned: &CStr) -> bool {
    now == pinned
        || name.to_bytes().starts_with(b"lc_")
            && pinned == c"C"
            && [c"POSIX", c"C.UTF-8", c"C.utf8"].contains(&now)
}

/// # Safety
/// Must be inside a GUC nest level of the caller's.
unsafe fn set(name: &CStr, value: &CStr, action: pg_sys::GucAction::Type) {
    // SAFETY: C strings that live through the call.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(level) = self.level
            && !std::thread::panicking()
        {
            // SAFETY: the level that `new` opened; while unwinding the abort closes it.
            unsafe { pg_sys::AtEOXact_GUC(true, level) };
        }
    }
}

/// A setting of the server's, as SHOW prints it; whatever the current user may see.
pub fn setting(name: &CStr) -> Option<String> {
    // SAFETY: returns NULL for unknown names, else a string owned by the GUC machinery.
    unsafe {
        let v = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!v.is_null()).then(|| CStr::from_ptr(v).to_string_lossy().into_owned())
    }
}
