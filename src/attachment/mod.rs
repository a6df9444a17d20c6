//! What is attached, and this backend's resolved copy of it.
//!
//! May touch the catalogs and our own tables, reading only; the one thing it takes is the lock on the attachment's
//! row. Invariant: the copy is dropped by relcache invalidation of the attachment or of any used table
//! before a statement that could see the difference runs; it is loaded from the newest committed
//! state, so a transaction that began before attach finds it too.
//!
//! - here: the copy, and who may look at it when
//! - `attached`: what it is made of
//! - `load`: making it from what attach() recorded and the catalogs
//! - `walk`: the way from a profile back to what leads to it
//! - `health`: whether the tables, triggers and indexes are still as attach() left them
//!
//! Rules: R9, D2, D11.

mod attached;
mod health;
mod load;
mod walk;

pub use attached::{Attached, CacheColumns, Degraded, Gone, Naming, State, UsedLink, UsedTable};
pub use health::{UNIQUE_KEY, expiry_indexed, missing_triggers};
pub use load::{other_layout, relations_of_view};
pub use walk::{Hop, Walk};

use crate::definition::Definition;
use crate::error::{Error, check_interrupts};
use crate::pg::guard::current_user;
use crate::pg::spi::{self, Snapshot};
use crate::pg::{Oid, catalog, locks};
use crate::rights::{self, as_ourselves};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

thread_local! {
    static COPY: RefCell<Option<State>> = const { RefCell::new(None) };
    static WATCHED: RefCell<Vec<Oid>> = const { RefCell::new(Vec::new()) };
    /// While the copy is loaded, when it is not known yet what it will be made of: what has changed since.
    static MEANWHILE: RefCell<Option<HashSet<Oid>>> = const { RefCell::new(None) };
    static CHANGED: Cell<bool> = const { Cell::new(true) };
    static ATTACHING: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, DDL in this backend is attach's or detach's own.
pub struct Attaching(());

impl Attaching {
    pub fn begin() -> Attaching {
        ATTACHING.set(true);
        Attaching(())
    }
    pub fn under_way() -> bool {
        ATTACHING.get()
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        ATTACHING.set(false);
    }
}

/// The relcache callback: `relation` changed (or, where invalid, anything may have).
pub fn relation_changed(relation: Oid) {
    let ours = relation == Oid::INVALID
        || WATCHED.with(|w| w.try_borrow().map_or(true, |w| w.contains(&relation)));
    if ours {
        CHANGED.set(true);
    }
    MEANWHILE.with(|m| match m.try_borrow_mut() {
        Ok(mut meanwhile) => {
            if let Some(meanwhile) = meanwhile.as_mut() {
                meanwhile.insert(relation);
            }
        }
        Err(_) => CHANGED.set(true),
    });
}

/// Loading that is cut short, as by a timeout, leaves the copy of before, of which it is not known what has become of it.
struct Unfinished;

impl Drop for Unfinished {
    fn drop(&mut self) {
        MEANWHILE.take();
        CHANGED.set(true);
    }
}

/// The attachment as it is now.
pub fn load() -> State {
    if !CHANGED.get()
        && let Some(state) = COPY.with(|c| c.borrow().clone())
    {
        return state;
    }
    // Reading the catalogs may itself process invalidations; a change during it means once more.
    for _ in 0..10 {
        CHANGED.set(false);
        MEANWHILE.set(Some(HashSet::new()));
        let unfinished = Unfinished;
        spi::forget_plans();
        let (state, watched) = load::read();
        let meanwhile = MEANWHILE.take().unwrap_or_default();
        std::mem::forget(unfinished);
        if watched.iter().any(|relation| meanwhile.contains(relation)) {
            CHANGED.set(true);
        }
        let keep = !matches!(state, State::None);
        WATCHED.with(|w| *w.borrow_mut() = watched);
        COPY.with(|c| *c.borrow_mut() = keep.then(|| state.clone()));
        if !CHANGED.get() {
            CHANGED.set(!keep);
            return state;
        }
    }
    COPY.with(|c| c.borrow().clone()).unwrap_or(State::None)
}

/// The attachment as it is now, with its profile table locked for reading: whoever takes a lock looks
/// again, for what has been committed while it waited, or since this session last looked.
pub fn locked() -> State {
    loop {
        check_interrupts();
        catalog::accept_invalidations();
        let state = load();
        if let State::Ready(a) = &state {
            locks::lock_for_reading(a.profile);
            if changed() {
                continue;
            }
        }
        return state;
    }
}

/// Whether what is attached may be another since it was last loaded.
pub fn changed() -> bool {
    CHANGED.get()
}

/// The attachment, locked for reading; or the error that says what is wrong with it.
pub fn required_locked() -> Rc<Attached> {
    or_error(locked())
}

/// The attachment, or the error that says what is wrong with it.
pub fn required() -> Rc<Attached> {
    or_error(load())
}

/// The attachment, for who may manage the extension and owns the tables.
pub fn managed(attached: impl Fn() -> Rc<Attached>) -> Rc<Attached> {
    rights::check_extension_member();
    let a = attached();
    rights::check_owner(current_user(), a.profile);
    a
}

fn or_error(state: State) -> Rc<Attached> {
    match state {
        State::Ready(a) => a,
        State::None => Error::NotAttached.raise(),
        State::Gone(gone) => gone.error().raise(),
    }
}

/// Raises where our tables are not as this library knows them.
pub fn check_layout() {
    if let Some(gone) = other_layout() {
        gone.error().raise();
    }
}

/// What the attachment says, whether or not it still holds.
#[derive(Clone)]
pub struct Recorded {
    pub profile: Oid,
    pub document: Oid,
    pub definition: Option<Definition>,
    /// It has a problem, or there has been DDL that nobody has looked at.
    pub problem: bool,
    /// There has been such DDL.
    pub unseen: bool,
}

/// Locks the attachment's row until the transaction ends, and takes note of what others have
/// committed. False where another transaction has it, or there is none.
pub fn try_lock_row() -> bool {
    let _us = as_ourselves();
    let sql = "SELECT FROM profile_cache.attachment AS a FOR UPDATE SKIP LOCKED";
    let locked = spi::one(sql, Snapshot::New, &[], |_| ()).is_some();
    catalog::accept_invalidations();
    locked
}

/// A definition as it is recorded.
pub fn as_recorded(definition: &Definition) -> String {
    serde_json::to_string(definition).unwrap_or_else(|e| {
        Error::Internal(format!("the definition cannot be written down: {e}")).raise()
    })
}

pub fn recorded() -> Option<Recorded> {
    let _us = as_ourselves();
    let sql = "SELECT a.profile::oid, a.document::oid, a.definition::text, \
         a.problem IS NOT NULL, EXISTS (SELECT FROM profile_cache.pending_epoch AS p WHERE p.about IS NOT NULL) \
         FROM profile_cache.attachment AS a";
    spi::one(sql, Snapshot::Latest, &[], |r| {
        Some(Recorded {
            profile: r.oid(1)?,
            document: r.oid(2)?,
            definition: r.text(3).and_then(|d| serde_json::from_str(&d).ok()),
            problem: r.bool(4) != Some(false) || r.bool(5) != Some(false),
            unseen: r.bool(5) != Some(false),
        })
    })
    .flatten()
}
