//! As whom SQL of ours runs: as the tables' owner, or as ourselves; and who may ask for it.
//!
//! Invariant: code that users wrote (the document view and what it reaches, index expressions of the
//! profile table) runs only as the tables' owner; our own tables are read and written only as their
//! owner, by constant SQL. Both are a [`Guard`]: security-restricted, all settings pinned, undone at
//! its end. The one other way is [`as_caller`], for what the caller could ask himself.

use crate::error::Error;
use crate::pg::identity::{Guard, current_user};
use crate::pg::spi::{self, At};
use crate::pg::{Oid, catalog};
use crate::routes::display;
use std::cell::Cell;

/// Name of the extension and of its schema.
const NAME: &str = "profile_cache";

thread_local! {
    /// The table that holds the attachment, and its owner.
    static HOME: Cell<Option<(Oid, Oid)>> = const { Cell::new(None) };
}

/// The table that holds the attachment, and its owner, who owns all our tables. None where there is no
/// extension, or no longer: a schema and a table of these names may be anybody's.
pub fn home() -> Option<(Oid, Oid)> {
    if HOME.get().is_none() {
        let ours = |table: &Oid| catalog::belongs_to_extension(*table, NAME);
        let table = catalog::relation(NAME, "attachment").filter(ours);
        HOME.set(table.and_then(|table| Some((table, catalog::owner(table)?))));
    }
    HOME.get()
}

/// The relcache callback: `relation` changed (or, where invalid, anything may have).
pub fn relation_changed(relation: Oid) {
    if HOME
        .get()
        .is_some_and(|(table, _)| relation == Oid::INVALID || relation == table)
    {
        HOME.set(None);
    }
}

/// The owner of our own tables. With no user-written code inside.
pub fn as_ourselves() -> Guard {
    match home() {
        Some((_, owner)) => Guard::user(owner),
        None => Error::NotAttached.raise(),
    }
}

/// The tables' owner: for the document view, his tables, and DDL on them.
pub fn as_owner(owner: Oid) -> Guard {
    Guard::user(owner)
}

/// The caller, for the one query that shows whether he sees a row.
pub fn as_caller() -> Guard {
    Guard::caller()
}

/// Raises where `user` is not the table's owner.
pub fn check_owner(user: Oid, table: Oid) {
    if !catalog::owner(table).is_some_and(|owner| catalog::is_member_of(user, owner)) {
        let name = catalog::relation_name(table).map_or_else(String::new, |(s, t)| display(&s, &t));
        Error::NotOwner(name).raise();
    }
}

/// Raises where the current user is not (a member of) the extension's owner, who may keep others from
/// attaching a table of their own.
pub fn check_extension_member() {
    let user = current_user();
    let owner = {
        let _us = as_ourselves();
        spi::one(
            "SELECT e.extowner FROM pg_catalog.pg_extension AS e WHERE e.extname OPERATOR(pg_catalog.=) 'profile_cache'",
            At::Latest,
            &[],
            |r| r.oid(1),
        )
    };
    if let Some(owner) = owner.flatten()
        && !catalog::is_member_of(user, owner)
    {
        Error::NotExtensionMember(catalog::role_name(owner)).raise();
    }
}
