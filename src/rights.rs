//! As whom SQL of ours runs: as the tables' owner, or as ourselves; and who may ask for it.
//!
//! Invariant: code that users wrote (the document view and what it reaches, index expressions of the
//! profile table) runs only as the tables' owner; our own tables are read and written only as their
//! owner, by constant SQL. Both are a [`Guard`]: security-restricted, all settings pinned, undone at
//! its end. The one other way is [`as_caller`], for what the caller could ask himself.
#![doc = include_str!("rights.md")]

use crate::definition::display;
use crate::error::{Error, missing};
use crate::pg::guard::{Guard, current_user};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog};
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
    if HOME.get().is_some_and(|(table, _)| relation == Oid::INVALID || relation == table) {
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
        match catalog::relation_name(table) {
            Some((schema, name)) => Error::NotOwner(display(&schema, &name)).raise(),
            None => Error::NoProfileTable(format!("with OID {table}")).raise(),
        }
    }
}

/// Raises where the current user is not (a member of) the extension's owner, who may manage it and keep
/// others from attaching a table of their own. Asked of the catalogs each time: a grant would stay
/// with an owner of the past.
pub fn check_extension_member() {
    let user = current_user();
    let owner = extension_owner();
    if !catalog::is_member_of(user, owner) {
        Error::NotExtensionMember(catalog::role_name(owner)).raise();
    }
}

/// Raises where the current user may not see the state of the cache: neither the extension's owner, nor
/// the tables', nor in pg_monitor.
pub fn check_may_watch(tables_owner: Option<Oid>) {
    check_one_of(&[tables_owner, Some(catalog::PG_MONITOR)]);
}

/// The same of who may have the counters begin anew: pg_monitor only reads.
pub fn check_may_reset(tables_owner: Option<Oid>) {
    check_one_of(&[tables_owner]);
}

/// Raises where the current user is neither the extension's owner nor one of these.
fn check_one_of(others: &[Option<Oid>]) {
    let (user, owner) = (current_user(), extension_owner());
    let mut roles = others.iter().flatten().chain([&owner]);
    if !roles.any(|role| catalog::is_member_of(user, *role)) {
        Error::NotExtensionMember(catalog::role_name(owner)).raise();
    }
}

fn extension_owner() -> Oid {
    let _us = as_ourselves();
    spi::one(
        "SELECT e.extowner FROM pg_catalog.pg_extension AS e WHERE e.extname OPERATOR(pg_catalog.=) 'profile_cache'",
        Snapshot::Latest,
        &[],
        |r| r.oid(1),
    )
    .flatten()
    .unwrap_or_else(|| missing("the extension's owner"))
}

/// From whom [`set`] takes back what is not to be granted on the extension's objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Revoke {
    /// From everybody, whom default privileges may have given it.
    All,
    /// From those to whom this function has given it, and who own neither the extension nor the tables
    /// any more. What a superuser has granted to others, he has granted knowingly; but for what lets them write our tables or
    /// put triggers on them, which nobody is to have, since what we write runs them as the extension's owner.
    FormerOwners,
}

/// The same for who comes often: nothing where the owners are as they were when this was last done.
pub fn keep(tables_owner: Oid) {
    let as_wanted = {
        let _us = as_ourselves();
        spi::one(AS_WANTED, Snapshot::New, &[Arg::oid(tables_owner)], |_| ()).is_some()
    };
    if !as_wanted {
        set(Some(tables_owner), Revoke::FormerOwners);
    }
}

/// Grants what is to be granted on the extension's objects: reading our tables to the extension's owner
/// and `tables_owner`, who dump them; making triggers to the latter; calling to everybody, since each function
/// asks who calls.
pub fn set(tables_owner: Option<Oid>, revoke: Revoke) {
    let _us = as_ourselves();
    let statements = spi::all(
        RIGHTS,
        Snapshot::New,
        &[Arg::oid(tables_owner.unwrap_or(Oid::INVALID)), Arg::bool(revoke == Revoke::All)],
        |r| r.text(1),
    );
    // Event triggers of others, which DDL of ours would run as ourselves, are not for this.
    let _quiet = as_ourselves().with(c"session_replication_role", "replica");
    for statement in statements.into_iter().flatten() {
        spi::utility(&statement);
    }
}

/// $1: the tables' owner. A row where set_rights() is granted to whom it should be, and our triggers to the
/// tables' owner, and so all else; and nobody may do more with our tables than read them.
const AS_WANTED: &str = "WITH reader(role) AS (SELECT e.extowner FROM pg_extension AS e WHERE e.extname = 'profile_cache' \
   UNION SELECT $1 WHERE $1 <> 0), \
  given(role) AS (SELECT x.grantee FROM pg_proc AS f CROSS JOIN LATERAL aclexplode(f.proacl) AS x \
   WHERE f.oid = 'profile_cache.set_rights'::regproc AND x.grantee <> f.proowner) \
 SELECT FROM pg_proc AS f WHERE f.oid = 'profile_cache.set_rights'::regproc AND f.proacl IS NOT NULL \
  AND ($1 = 0 OR has_function_privilege($1, 'profile_cache.after_statement()', 'EXECUTE')) \
  AND NOT EXISTS (SELECT r.role FROM reader AS r WHERE r.role <> f.proowner EXCEPT SELECT g.role FROM given AS g) \
  AND NOT EXISTS (SELECT g.role FROM given AS g EXCEPT SELECT r.role FROM reader AS r) \
  AND NOT EXISTS (SELECT FROM pg_extension AS e JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid \
    AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass JOIN pg_class AS c ON c.oid = d.objid CROSS JOIN LATERAL aclexplode(c.relacl) AS x \
   WHERE e.extname = 'profile_cache' AND x.grantee <> c.relowner AND x.privilege_type <> 'SELECT')";

/// $1: the tables' owner; $2: whether to revoke from all. The statements that make what is granted what is
/// wanted. Whoever has been granted `set_rights()` is one to whom this has given rights.
const RIGHTS: &str = "WITH extension AS (SELECT e.oid, e.extowner FROM pg_extension AS e WHERE e.extname = 'profile_cache'), \
  member(class, oid) AS (SELECT d.classid, d.objid FROM pg_depend AS d JOIN extension AS e ON d.refobjid = e.oid \
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'), \
  object(class, oid, kind, name, bare, owner, acl) AS ( \
    SELECT m.class, m.oid, 'SCHEMA', quote_ident(n.nspname), n.nspname, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)) \
     FROM member AS m JOIN pg_namespace AS n ON m.class = 'pg_namespace'::regclass AND n.oid = m.oid \
    UNION ALL SELECT m.class, m.oid, 'TABLE', m.oid::regclass::text, c.relname, c.relowner, coalesce(c.relacl, acldefault('r', c.relowner)) \
     FROM member AS m JOIN pg_class AS c ON m.class = 'pg_class'::regclass AND c.oid = m.oid AND c.relkind IN ('r', 'v') \
    UNION ALL SELECT m.class, m.oid, 'ROUTINE', m.oid::regprocedure::text, f.proname, f.proowner, coalesce(f.proacl, acldefault('f', f.proowner)) \
     FROM member AS m JOIN pg_proc AS f ON m.class = 'pg_proc'::regclass AND f.oid = m.oid), \
  reader(role) AS (SELECT e.extowner FROM extension AS e UNION SELECT $1 WHERE $1 <> 0), \
  wanted(class, oid, role, privilege) AS ( \
    SELECT o.class, o.oid, 0::oid, CASE o.kind WHEN 'SCHEMA' THEN 'USAGE' ELSE 'EXECUTE' END FROM object AS o \
     WHERE CASE o.kind WHEN 'SCHEMA' THEN true WHEN 'TABLE' THEN false ELSE o.bare IN ('get_profile', 'get_profiles', 'explain', 'iso8601', 'changes_position', 'changed_since', \
      'attach', 'detach', 'invalidate', 'invalidate_all', 'verify', 'refresh', 'refresh_begin', 'refresh_step', 'status_row', 'routes_rows', 'stats_row', 'stats_reset', 'health') END \
    UNION ALL SELECT o.class, o.oid, r.role, CASE o.kind WHEN 'TABLE' THEN 'SELECT' ELSE 'EXECUTE' END FROM object AS o, reader AS r \
     WHERE o.kind = 'TABLE' OR o.bare = 'set_rights' \
    UNION ALL SELECT o.class, o.oid, 'pg_monitor'::regrole::oid, 'SELECT' FROM object AS o WHERE o.kind = 'TABLE' AND o.bare IN ('status', 'routes', 'stats') \
    UNION ALL SELECT o.class, o.oid, $1, 'EXECUTE' FROM object AS o \
     WHERE $1 <> 0 AND o.bare IN ('distrust', 'before_statement', 'after_statement')), \
  given(class, oid, role, privilege) AS (SELECT o.class, o.oid, x.grantee, x.privilege_type \
    FROM object AS o, aclexplode(o.acl) AS x WHERE x.grantee <> o.owner), \
  change(class, oid, role, privilege, gives) AS ( \
    SELECT g.*, false FROM given AS g JOIN object AS o USING (class, oid) WHERE ($2 OR o.kind = 'TABLE' AND g.privilege <> 'SELECT' \
      OR g.role IN (SELECT m.role FROM given AS m JOIN object AS o USING (class, oid) WHERE o.bare = 'set_rights' \
      EXCEPT SELECT r.role FROM reader AS r)) AND (g.class, g.oid, g.role, g.privilege) NOT IN (SELECT w.* FROM wanted AS w) \
    UNION ALL SELECT w.*, true FROM wanted AS w JOIN object AS o USING (class, oid) \
     WHERE w.role <> o.owner AND (w.class, w.oid, w.role, w.privilege) NOT IN (SELECT g.* FROM given AS g)) \
 SELECT format(CASE WHEN c.gives THEN 'GRANT %s ON %s %s TO %s' ELSE 'REVOKE %s ON %s %s FROM %s CASCADE' END, c.privilege, o.kind, o.name, \
   CASE WHEN c.role = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END) \
 FROM change AS c JOIN object AS o USING (class, oid) LEFT JOIN pg_roles AS r ON r.oid = c.role \
 WHERE c.role = 0 OR r.oid IS NOT NULL \
 UNION ALL SELECT format('REVOKE GRANT OPTION FOR %s ON %s %s FROM %s CASCADE', x.privilege_type, o.kind, o.name, quote_ident(r.rolname)) \
  FROM object AS o CROSS JOIN LATERAL aclexplode(o.acl) AS x JOIN pg_roles AS r ON r.oid = x.grantee \
  WHERE $2 AND x.is_grantable AND x.grantee <> o.owner ORDER BY 1";
