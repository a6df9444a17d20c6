//! Whose rights and which settings our SQL runs with.
//!
//! Invariant: a statement runs only inside a [`Guard`] (`spi.rs` refuses it elsewhere), which gives
//! the user, the security-restricted operation, the settings and their end all at once. Whatever the
//! code inside has set is taken back when the guard goes, as in REFRESH MATERIALIZED VIEW.

use pgrx::pg_sys::{self, Oid};
use std::cell::{Cell, OnceCell};
use std::ffi::{CStr, CString, c_char};

/// What is known of this backend's settings at a place in our code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settings {
    /// The session's own.
    Session,
    /// Pinned, and no code but ours has run since.
    Pinned,
    /// Inside a guard: pinned at its beginning, but code of a user's may have set others.
    Guarded,
    /// Inside [`Guard::caller`]: the session's own on purpose.
    Caller,
}

thread_local! {
    static SETTINGS: Cell<Settings> = const { Cell::new(Settings::Session) };
}

/// Another user, restricted, under pinned settings, until dropped. An error drops it too, and the
/// (sub)transaction's abort that follows takes back what it would have.
pub struct Guard {
    user: Oid,
    context: i32,
    /// The settings' nest level that goes with it.
    level: Option<i32>,
    around: Settings,
}

impl Guard {
    /// `user`, in a security-restricted operation: no SET ROLE, no temporary objects, nothing that
    /// outlives it.
    pub fn user(user: Oid) -> Guard {
        let guard = Guard::enter(user, Settings::Guarded);
        // SAFETY: saved in `enter`, restored in Drop or by the (sub)transaction's abort.
        unsafe {
            let flags =
                pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION;
            pg_sys::SetUserIdAndSecContext(user, guard.context | flags as i32);
        }
        guard
    }

    /// The caller, who asks what a SELECT of his own would show him: nothing is switched or pinned.
    pub fn caller() -> Guard {
        Guard::enter(current_user(), Settings::Caller)
    }

    fn enter(user: Oid, inside: Settings) -> Guard {
        let around = SETTINGS.get();
        let (mut before, mut context) = (Oid::INVALID, 0);
        // SAFETY: out parameters.
        unsafe { pg_sys::GetUserIdAndSecContext(&mut before, &mut context) };
        debug_assert!(user != Oid::INVALID);
        // A level of its own, that what is set inside ends with it.
        let level = (inside == Settings::Guarded).then(|| {
            // SAFETY: closed in Drop, or by the (sub)transaction's abort.
            let level = unsafe { pg_sys::NewGUCNestLevel() };
            if around != Settings::Pinned {
                pin();
            }
            level
        });
        SETTINGS.set(inside);
        Guard { user: before, context, level, around }
    }

    /// With one more setting until the guard goes: attach's `lock_timeout`, a planner's switch.
    pub fn with(self, name: &CStr, value: &str) -> Guard {
        let value = CString::new(value).unwrap_or_default();
        // SAFETY: inside this guard's nest level; C strings that live through the call.
        unsafe { set(name, &value) };
        self
    }

    /// Whether a statement may run here.
    pub fn is_there() -> bool {
        matches!(SETTINGS.get(), Settings::Guarded | Settings::Caller)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        SETTINGS.set(self.around);
        // SAFETY: the values that `enter` saved, and the level that it opened: guards nest like the
        // frames that hold them. While unwinding, the abort that follows closes the level.
        unsafe {
            if let Some(level) = self.level
                && !std::thread::panicking()
            {
                pg_sys::AtEOXact_GUC(false, level);
            }
            pg_sys::SetUserIdAndSecContext(self.user, self.context);
        }
    }
}

/// Pinned settings for several guards in a row, and for values' text forms, until dropped.
pub struct LocalSettings {
    level: Option<i32>,
    around: Settings,
}

impl LocalSettings {
    pub fn new() -> LocalSettings {
        let around = SETTINGS.get();
        let level = (around != Settings::Pinned).then(|| {
            // SAFETY: closed in Drop, or by the (sub)transaction's abort.
            let level = unsafe { pg_sys::NewGUCNestLevel() };
            pin();
            level
        });
        SETTINGS.set(Settings::Pinned);
        LocalSettings { level, around }
    }
}

impl Drop for LocalSettings {
    fn drop(&mut self) {
        SETTINGS.set(self.around);
        if let Some(level) = self.level
            && !std::thread::panicking()
        {
            // SAFETY: the level that `new` opened; while unwinding the abort closes it.
            unsafe { pg_sys::AtEOXact_GUC(false, level) };
        }
    }
}

/// Every setting that can change what a query returns, or whether it fails, and its pinned value;
/// search_path last. rights.md says why the others are not here.
const PINNED: [(&CStr, &CStr); 25] = [
    // How values are printed and read.
    (c"TimeZone", c"UTC"),
    (c"DateStyle", c"ISO, MDY"),
    (c"IntervalStyle", c"postgres"),
    (c"timezone_abbreviations", c"Default"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"array_nulls", c"on"),
    (c"xmlbinary", c"base64"),
    (c"xmloption", c"content"),
    (c"quote_all_identifiers", c"off"),
    (c"lc_monetary", c"C"),
    (c"lc_numeric", c"C"),
    (c"lc_time", c"C"),
    (c"default_text_search_config", c"pg_catalog.simple"),
    // What SQL text means.
    (c"standard_conforming_strings", c"on"),
    (c"backslash_quote", c"safe_encoding"),
    (c"transform_null_equals", c"off"),
    // Which rows a query finds, and in which order where it says none.
    (c"gin_fuzzy_search_limit", c"0"),
    (c"synchronize_seqscans", c"off"),
    (c"row_security", c"on"),
    // Compiling takes longer than anything that we run.
    (c"jit", c"off"),
    // What makes computing fail, or an error that we contain the session's end.
    (c"restrict_nonsystem_relation_kind", c""),
    (c"exit_on_error", c"off"),
    (c"composite_type_mismatch", c"error"),
    // Whose names are meant.
    (c"search_path", c"pg_catalog, pg_temp"),
];

/// Sets those that differ, in the caller's nest level. A setting that this server does not have is
/// left out.
fn pin() {
    PLACES.with(|places| {
        let places = places.get_or_init(places_of_pinned);
        for ((name, value), place) in PINNED.iter().zip(places) {
            if !place.holds(name, value) {
                // SAFETY: constant C strings; the setting goes back with the caller's nest level.
                unsafe { set(name, value) };
            }
        }
    });
}

thread_local! {
    /// Where each of [`PINNED`] is kept.
    static PLACES: OnceCell<Vec<Place>> = const { OnceCell::new() };
}

/// Where the server keeps a setting: looking for each by its name takes longer than all else that pinning does where
/// nothing differs.
enum Place {
    /// A variable of the server's own, which stays where it is; and the pinned value as it would hold it.
    Bool(*const bool, bool),
    Number(*const i32, i32),
    Text(*const *mut c_char),
    /// Looked for by its name each time.
    Unknown,
}

impl Place {
    /// Whether the setting is as good as pinned, or is none of this server's.
    fn holds(&self, name: &CStr, pinned: &CStr) -> bool {
        // SAFETY: variables of the server's, which are never freed; a text in one is a C string, or NULL.
        unsafe {
            match *self {
                Place::Bool(variable, pinned) => *variable == pinned,
                Place::Number(variable, pinned) => *variable == pinned,
                Place::Text(variable) if !(*variable).is_null() => {
                    same(name, CStr::from_ptr(*variable), pinned)
                }
                _ => {
                    let now = pg_sys::GetConfigOption(name.as_ptr(), true, false);
                    now.is_null() || same(name, CStr::from_ptr(now), pinned)
                }
            }
        }
    }
}

fn places_of_pinned() -> Vec<Place> {
    // SAFETY: pointers to the server's records of settings, of that many.
    let all = unsafe {
        #[cfg(feature = "pg15")]
        let (first, number) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (first, number) = {
            let mut number = 0;
            (pg_sys::get_guc_variables(&mut number), number)
        };
        std::slice::from_raw_parts(first, usize::try_from(number).unwrap_or_default())
    };
    // SAFETY: live records, each with its name.
    let named = all.iter().map(|record| unsafe { (CStr::from_ptr((**record).name), *record) });
    let named: Vec<_> = named.collect();
    let place = |(name, value): &(&CStr, &CStr)| {
        let is = |known: &CStr| known.to_bytes().eq_ignore_ascii_case(name.to_bytes());
        let found = named.iter().find(|(known, _)| is(known));
        found.map_or(Place::Unknown, |(_, record)| place_of(*record, value))
    };
    PINNED.iter().map(place).collect()
}

fn place_of(record: *mut pg_sys::config_generic, pinned: &CStr) -> Place {
    use pg_sys::config_type::*;
    // SAFETY: a live record; what it is of is said by its type. One that a library has made may be
    // replaced, and is not kept.
    unsafe {
        if (*record).group == pg_sys::config_group::CUSTOM_OPTIONS {
            return Place::Unknown;
        }
        match (*record).vartype {
            PGC_BOOL => {
                Place::Bool((*record.cast::<pg_sys::config_bool>()).variable, pinned == c"on")
            }
            PGC_INT => match pinned.to_str().map(str::parse) {
                Ok(Ok(n)) => Place::Number((*record.cast::<pg_sys::config_int>()).variable, n),
                _ => Place::Unknown,
            },
            PGC_ENUM => {
                let record: *mut pg_sys::config_enum = record.cast();
                let mut number = 0;
                match pg_sys::config_enum_lookup_by_name(record, pinned.as_ptr(), &mut number) {
                    true => Place::Number((*record).variable, number),
                    false => Place::Unknown,
                }
            }
            PGC_STRING => Place::Text((*record.cast::<pg_sys::config_string>()).variable),
            _ => Place::Unknown,
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
unsafe fn set(name: &CStr, value: &CStr) {
    // SAFETY: C strings that live through the call.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            // Some are a superuser's to set: what holds them here is the nest level.
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

pub fn current_user() -> Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetUserId() }
}

/// A setting of the server's, as SHOW prints it; whatever the current user may see.
pub fn setting(name: &CStr) -> Option<String> {
    // SAFETY: returns NULL for unknown names, else a string owned by the GUC machinery.
    unsafe {
        let v = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!v.is_null()).then(|| CStr::from_ptr(v).to_string_lossy().into_owned())
    }
}
