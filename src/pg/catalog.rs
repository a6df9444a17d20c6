//! Small questions to the system catalogs, by their caches.
//!
//! Invariant: nothing here reads a user's table, or takes a lock that outlives the call (but for
//! [`view_columns`], on the view).

use super::Oid;
use pgrx::{PgList, pg_sys};
use std::ffi::{CStr, CString};

/// The OID of a relation in a schema, if both exist.
pub fn relation(schema: &str, name: &str) -> Option<Oid> {
    let (schema, name) = (CString::new(schema).ok()?, CString::new(name).ok()?);
    // SAFETY: cache look-ups by C strings that live through the calls.
    let oid = unsafe {
        let n = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if n == Oid::INVALID { n } else { pg_sys::get_relname_relid(name.as_ptr(), n) }
    };
    (oid != Oid::INVALID).then_some(oid)
}

/// The owner of an existing relation.
pub fn owner(relation: Oid) -> Option<Oid> {
    // SAFETY: the relcache entry is pinned while it is read.
    unsafe {
        let r = pg_sys::RelationIdGetRelation(relation);
        if r.is_null() {
            return None;
        }
        let owner = (*(*r).rd_rel).relowner;
        pg_sys::RelationClose(r);
        Some(owner)
    }
}

/// Whether a relation is a member of the extension of this name.
pub fn belongs_to_extension(relation: Oid, extension: &str) -> bool {
    let Ok(extension) = CString::new(extension) else {
        return false;
    };
    // SAFETY: catalog look-ups by a C string that lives through the calls.
    unsafe {
        let oid = pg_sys::get_extension_oid(extension.as_ptr(), true);
        oid != Oid::INVALID
            && pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, relation) == oid
    }
}

/// The database cluster and the database: what OIDs mean something in.
pub fn place() -> (i64, Oid) {
    // SAFETY: read the backend's own state.
    unsafe { (pg_sys::GetSystemIdentifier() as i64, pg_sys::MyDatabaseId) }
}

/// The type of a table's rows; of what is no relation the invalid one.
pub fn row_type(relation: Oid) -> Oid {
    // SAFETY: a cache look-up.
    unsafe { pg_sys::get_rel_type_id(relation) }
}

/// Whether a schema is a session's own.
pub fn is_temporary_schema(schema: Oid) -> bool {
    // SAFETY: a cache look-up.
    unsafe { pg_sys::isAnyTempNamespace(schema) }
}

/// Whether a relation is an ordinary table.
pub fn is_table(relation: Oid) -> bool {
    // SAFETY: a cache look-up.
    unsafe { pg_sys::get_rel_relkind(relation) == pg_sys::RELKIND_RELATION as std::ffi::c_char }
}

/// The relation that this name means in the session's search_path.
pub fn relation_by_path(name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: cache look-ups by a C string that lives through the call.
    let oid = unsafe { pg_sys::RelnameGetRelid(name.as_ptr()) };
    (oid != Oid::INVALID).then_some(oid)
}

/// The schema that a relation is in.
pub fn schema(relation: Oid) -> Option<Oid> {
    // SAFETY: a cache look-up.
    let schema = unsafe { pg_sys::get_rel_namespace(relation) };
    (schema != Oid::INVALID).then_some(schema)
}

/// Schema and name of a relation, if it exists.
pub fn relation_name(oid: Oid) -> Option<(String, String)> {
    // SAFETY: cache look-ups that return palloc'd strings or NULL.
    unsafe {
        let name = string(pg_sys::get_rel_name(oid))?;
        let schema = string(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid)))?;
        Some((schema, name))
    }
}

pub fn column_number(relation: Oid, name: &str) -> Option<i16> {
    let name = CString::new(name).ok()?;
    // SAFETY: a cache look-up.
    let n = unsafe { pg_sys::get_attnum(relation, name.as_ptr()) };
    (n > 0).then_some(n)
}

pub fn column_type(relation: Oid, column: i16) -> Oid {
    // SAFETY: a cache look-up.
    unsafe { pg_sys::get_atttype(relation, column) }
}

/// The type under a domain, or the type itself.
pub fn base_type(oid: Oid) -> Oid {
    // SAFETY: a cache look-up.
    unsafe { pg_sys::getBaseType(oid) }
}

/// A type's name as SQL writes it where it has no length: `character` would mean one character.
pub fn type_name(oid: Oid) -> String {
    // SAFETY: a cache look-up that returns a palloc'd string, `???` for a type that is gone.
    unsafe { string(pg_sys::format_type_with_typemod(oid, -1)) }.unwrap_or_else(|| "???".into())
}

/// The name of a system column, by its (negative) number.
pub fn system_column(number: i16) -> String {
    // SAFETY: the stored query refers to no system column that does not exist.
    unsafe { string((*pg_sys::SystemAttributeDefinition(number)).attname.data.as_ptr()) }
        .unwrap_or_else(|| format!("number {number}"))
}

/// Whether a type's values are labels, which can be renamed.
pub fn is_enum(oid: Oid) -> bool {
    // SAFETY: a cache look-up.
    unsafe { pg_sys::type_is_enum(oid) }
}

/// Whether equal values of a column have one text, but for the padding of character(n).
pub fn has_one_text(relation: Oid, column: i16) -> bool {
    const TYPES: [Oid; 9] = [
        pg_sys::UUIDOID,
        pg_sys::INT2OID,
        pg_sys::INT4OID,
        pg_sys::INT8OID,
        pg_sys::OIDOID,
        pg_sys::TEXTOID,
        pg_sys::VARCHAROID,
        pg_sys::BPCHAROID,
        pg_sys::NAMEOID,
    ];
    let (mut oid, mut typmod, mut collation) = (Oid::INVALID, -1, Oid::INVALID);
    // SAFETY: cache look-ups; out parameters.
    unsafe {
        pg_sys::get_atttypetypmodcoll(relation, column, &mut oid, &mut typmod, &mut collation);
        TYPES.contains(&pg_sys::getBaseType(oid))
            && (collation == Oid::INVALID || pg_sys::get_collation_isdeterministic(collation))
    }
}

/// The table of an index; None for any other relation.
pub fn table_of_index(relation: Oid) -> Option<Oid> {
    // SAFETY: a cache look-up.
    let table = unsafe { pg_sys::IndexGetRelation(relation, true) };
    (table != Oid::INVALID).then_some(table)
}

/// Whether a relation goes with its session.
pub fn is_temporary(relation: Oid) -> bool {
    // SAFETY: a cache look-up.
    unsafe {
        pg_sys::get_rel_persistence(relation) == pg_sys::RELPERSISTENCE_TEMP as std::ffi::c_char
    }
}

/// The predefined role of who may watch a server.
pub const PG_MONITOR: Oid = Oid::from_u32(pg_sys::ROLE_PG_MONITOR);

pub fn is_member_of(role: Oid, of: Oid) -> bool {
    // SAFETY: cached role membership; superusers are members of every role.
    unsafe { pg_sys::has_privs_of_role(role, of) }
}

pub fn role_name(oid: Oid) -> String {
    // SAFETY: a cache look-up that returns a palloc'd string, or NULL for a role that is gone.
    let name = unsafe { string(pg_sys::GetUserNameFromId(oid, true)) };
    name.unwrap_or_else(|| format!("with OID {}", oid.to_u32()))
}

/// Whether `user` may name relations in the schema of `relation`, and read one of its columns.
pub fn may_read_column(user: Oid, relation: Oid, column: i16) -> bool {
    let select = pg_sys::ACL_SELECT as pg_sys::AclMode;
    let ok = pg_sys::AclResult::ACLCHECK_OK;
    // SAFETY: cache look-ups.
    unsafe {
        pg_sys::pg_class_aclcheck(relation, user, select) == ok
            || pg_sys::pg_attribute_aclcheck(relation, column, user, select) == ok
    }
}

pub fn may_use_schema_of(user: Oid, relation: Oid) -> bool {
    let usage = pg_sys::ACL_USAGE as pg_sys::AclMode;
    // SAFETY: cache look-ups.
    unsafe {
        let schema = pg_sys::get_rel_namespace(relation);
        #[cfg(feature = "pg15")]
        let r = pg_sys::pg_namespace_aclcheck(schema, user, usage);
        #[cfg(not(feature = "pg15"))]
        let r = pg_sys::object_aclcheck(pg_sys::NamespaceRelationId, schema, user, usage);
        r == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether row security applies to the current user's reads of the table.
pub fn row_security_applies(relation: Oid) -> bool {
    // SAFETY: cache look-ups; with row_security = off it says so by an error, as a SELECT would.
    unsafe {
        pg_sys::check_enable_rls(relation, Oid::INVALID, false)
            == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    }
}

/// The database's encoding, where it is not UTF8.
pub fn other_encoding() -> Option<String> {
    // SAFETY: reads the backend's own state; the name is a constant of the server's.
    unsafe {
        if pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32 {
            return None;
        }
        Some(string(pg_sys::GetDatabaseEncodingName()).unwrap_or_default())
    }
}

/// One output column of a view.
pub struct ViewColumn {
    pub name: String,
    pub oid: Oid,
}

/// The output columns of a view, from its stored query; none where it is not a view.
pub fn view_columns(view: Oid) -> Vec<ViewColumn> {
    // SAFETY: the view is open with a lock while its rule is read; names are copied.
    unsafe {
        let relation = pg_sys::relation_open(view, pg_sys::AccessShareLock as i32);
        if (*(*relation).rd_rel).relkind != pg_sys::RELKIND_VIEW as std::ffi::c_char {
            pg_sys::relation_close(relation, pg_sys::NoLock as i32);
            return vec![];
        }
        let query = pg_sys::get_view_query(relation);
        let columns = PgList::<pg_sys::TargetEntry>::from_pg((*query).targetList)
            .iter_ptr()
            .filter(|t| !(**t).resjunk)
            .map(|t| ViewColumn {
                // Not resname: renaming a view's column changes pg_attribute alone.
                name: string(pg_sys::get_attname(view, (*t).resno, true)).unwrap_or_default(),
                oid: pg_sys::exprType((*t).expr.cast()),
            })
            .collect();
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        columns
    }
}

/// Processes what other backends have invalidated.
pub fn accept_invalidations() {
    // SAFETY: inside a transaction, with no cache entry held.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Tells every backend, at commit, to forget what it keeps about `relation`.
pub fn invalidate(relation: Oid) {
    // SAFETY: registers an invalidation message; the relation exists.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
}

/// # Safety
/// `s` is NULL or a palloc'd C string.
unsafe fn string(s: *const std::ffi::c_char) -> Option<String> {
    // SAFETY: as said.
    (!s.is_null()).then(|| unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned())
}
