//! As whom SQL of ours runs: as the tables' owner, or as ourselves; and who may ask for it.
//!
//! Invariant: code that users wrote (the document view and what it reaches, index expressions of the
//! profile table) runs only as the tables' owner; our own tables are read and written only as their
//! owner, by constant SQL. Both are a [`Guard`]: security-restricted, all settings pinned, undone at
//! its end. The one other way is [`as_caller`], for what the caller could ask himself.

use crate::error::Error;
use crate::pg::identity::{Guard, current_user};
use crate::pg::spi::{self, Arg, At};
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

/// From whom [`set`] takes back what is not to be granted on the extension's objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Revoke {
    /// From everybody, whom default privileges may have given it.
    All,
    /// From those who may call attach() and do not own the extension: not any more.
    FormerOwners,
    /// From nobody: a superuser may have granted more, knowingly.
    Nothing,
}

/// Grants what is to be granted on the extension's objects: reading our tables to the extension's owner
/// and `tables_owner`, who dump them; managing to the former; asking to everybody.
pub fn set(tables_owner: Option<Oid>, revoke: Revoke) {
    let _us = as_ourselves();
    let statements = spi::all(
        RIGHTS,
        At::New,
        &[
            Arg::oid(tables_owner.unwrap_or(Oid::INVALID)),
            Arg::bool(revoke == Revoke::All),
            Arg::bool(revoke == Revoke::FormerOwners),
        ],
        |r| r.text(1),
    );
    for statement in statements.into_iter().flatten() {
        spi::utility(&statement);
    }
}

/// $1: the tables' owner; $2, $3: whether to revoke from all, or from former owners. The statements that make what is granted what is wanted.
const RIGHTS: &str = "WITH extension AS (SELECT e.oid, e.extowner FROM pg_extension AS e WHERE e.extname = 'profile_cache'), \
  object(class, oid, kind, name, owner, acl) AS ( \
    SELECT 'pg_namespace'::regclass, n.oid, 'SCHEMA', quote_ident(n.nspname), n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)) \
     FROM pg_namespace AS n WHERE n.nspname = 'profile_cache' \
    UNION ALL SELECT 'pg_class'::regclass, c.oid, 'TABLE', 'profile_cache.' || quote_ident(c.relname), c.relowner, \
      coalesce(c.relacl, acldefault('r', c.relowner)) FROM pg_class AS c WHERE c.relnamespace = 'profile_cache'::regnamespace AND c.relkind IN ('r', 'v') \
    UNION ALL SELECT 'pg_proc'::regclass, f.oid, 'ROUTINE', f.oid::regprocedure::text, f.proowner, \
      coalesce(f.proacl, acldefault('f', f.proowner)) FROM pg_proc AS f WHERE f.pronamespace = 'profile_cache'::regnamespace), \
  wanted(class, oid, role, privilege) AS ( \
    SELECT o.class, o.oid, 0::oid, 'USAGE' FROM object AS o WHERE o.kind = 'SCHEMA' \
    UNION ALL SELECT o.class, o.oid, 0, 'EXECUTE' FROM object AS o WHERE o.kind = 'ROUTINE' \
      AND o.oid IN (SELECT f.oid FROM pg_proc AS f WHERE f.proname IN ('explain', 'iso8601')) \
    UNION SELECT o.class, o.oid, r.role, CASE o.kind WHEN 'TABLE' THEN 'SELECT' ELSE 'EXECUTE' END FROM object AS o, \
      (SELECT e.extowner, true FROM extension AS e UNION ALL SELECT $1, false WHERE $1 <> 0 \
       UNION ALL SELECT 'pg_monitor'::regrole, NULL) AS r(role, manages) \
     WHERE CASE WHEN o.name IN ('profile_cache.status', 'profile_cache.status_row()') THEN true \
      WHEN o.kind = 'TABLE' THEN r.manages IS NOT NULL \
      ELSE o.kind = 'ROUTINE' AND r.manages AND o.oid IN (SELECT f.oid FROM pg_proc AS f WHERE f.proname IN \
       ('attach', 'detach', 'invalidate', 'invalidate_all', 'verify', 'refresh', 'refresh_begin', 'refresh_step')) END), \
  given(class, oid, role, privilege) AS (SELECT o.class, o.oid, x.grantee, x.privilege_type \
    FROM object AS o, aclexplode(o.acl) AS x WHERE x.grantee <> o.owner), \
  change(class, oid, role, privilege, gives) AS ( \
    SELECT g.*, false FROM given AS g WHERE ($2 OR $3 AND g.role IN (SELECT m.role FROM given AS m JOIN pg_proc AS f ON f.oid = m.oid \
       WHERE m.class = 'pg_proc'::regclass AND f.proname = 'attach' AND m.role NOT IN (SELECT e.extowner FROM extension AS e))) AND (g.class, g.oid, g.role, g.privilege) NOT IN (SELECT w.* FROM wanted AS w) \
    UNION ALL SELECT w.*, true FROM wanted AS w JOIN object AS o USING (class, oid) \
     WHERE w.role <> o.owner AND (w.class, w.oid, w.role, w.privilege) NOT IN (SELECT g.* FROM given AS g)) \
 SELECT format(CASE WHEN c.gives THEN 'GRANT %s ON %s %s TO %s' ELSE 'REVOKE %s ON %s %s FROM %s CASCADE' END, c.privilege, o.kind, o.name, \
   CASE WHEN c.role = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END) \
 FROM change AS c JOIN object AS o USING (class, oid) LEFT JOIN pg_roles AS r ON r.oid = c.role \
 WHERE c.role = 0 OR r.oid IS NOT NULL ORDER BY 1";
