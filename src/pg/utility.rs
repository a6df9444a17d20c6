//! Being told of statements that others run: those that want a database or an extension for themselves, and COMMIT PREPARED.
//!
//! Invariant: the statement itself is called as if this were not here. No frame of ours that would catch its error lies around
//! it, so that this reaches the client with all its fields.
//!
//! Rules: B1, B2.

use super::Oid;
use pgrx::{PgList, pg_guard, pg_sys};
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

/// Who is told.
pub struct Statements {
    /// A statement begins that wants nobody connected to this database, or that drops or updates `extension` there. Who has
    /// been told to leave.
    pub alone: fn(Oid) -> Vec<i32>,
    pub extension: &'static CStr,
    /// A prepared transaction of this database has been committed.
    pub committed_prepared: fn(),
    /// There may be another database of some name, by the end of this transaction.
    pub databases: fn(),
}

static STATEMENTS: OnceLock<Statements> = OnceLock::new();

thread_local! {
    static BEFORE: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Asks to be told; once, while the server preloads the library.
pub fn watch(statements: Statements) {
    let _ = STATEMENTS.set(statements);
    // SAFETY: the postmaster has one thread; the hook that was there is called by ours.
    unsafe {
        BEFORE.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(on_utility);
    }
}

// tcop/utility.h. Not by way of pgrx, which would catch the statement's error and raise one like it.
unsafe extern "C-unwind" {
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        dest: *mut pg_sys::DestReceiver,
        qc: *mut pg_sys::QueryCompletion,
    );
}

/// Not `pg_guard`: an error of the statement passes over this frame, which holds nothing.
unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    qc: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the server's own arguments, handed on as they came.
    unsafe {
        let committed = (*(*statement).utilityStmt).type_ == pg_sys::NodeTag::T_TransactionStmt
            && is_commit_prepared(statement);
        if wants_database(statement) {
            begins(statement);
        }
        let next = BEFORE.get().unwrap_or(standard_ProcessUtility);
        next(statement, text, read_only_tree, context, params, environment, dest, qc);
        if committed {
            ended();
        }
    }
}

/// # Safety
/// A utility statement that is a TransactionStmt.
unsafe fn is_commit_prepared(statement: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: the caller's.
    let kind = unsafe { (*(*statement).utilityStmt.cast::<pg_sys::TransactionStmt>()).kind };
    kind == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED
}

/// # Safety
/// A utility statement.
unsafe fn wants_database(statement: *mut pg_sys::PlannedStmt) -> bool {
    use pg_sys::NodeTag::*;
    // SAFETY: the caller's.
    let tag = unsafe { (*(*statement).utilityStmt).type_ };
    let database =
        matches!(tag, T_DropdbStmt | T_CreatedbStmt | T_AlterDatabaseStmt | T_RenameStmt);
    database || matches!(tag, T_DropStmt | T_AlterExtensionStmt)
}

#[pg_guard]
unsafe extern "C-unwind" fn ended() {
    if let Some(statements) = STATEMENTS.get() {
        (statements.committed_prepared)();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn begins(statement: *mut pg_sys::PlannedStmt) {
    let Some(statements) = STATEMENTS.get() else { return };
    // SAFETY: as the caller's; a backend variable.
    unsafe {
        if names_extension((*statement).utilityStmt, statements.extension) {
            if owns_extension(statements.extension) {
                (statements.alone)(pg_sys::MyDatabaseId);
            }
            return;
        }
    }
    // SAFETY: a utility statement of the kinds above; their fields are as the parser has set them.
    let name = unsafe {
        let node = (*statement).utilityStmt;
        match (*node).type_ {
            pg_sys::NodeTag::T_DropdbStmt => Some((*node.cast::<pg_sys::DropdbStmt>()).dbname),
            pg_sys::NodeTag::T_CreatedbStmt => {
                let options = (*node.cast::<pg_sys::CreatedbStmt>()).options;
                match option(options, c"template") {
                    Some(template) if !(*template).arg.is_null() => {
                        Some(pg_sys::defGetString(template))
                    }
                    _ => Some(c"template1".as_ptr().cast_mut()),
                }
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                let alter = &*node.cast::<pg_sys::AlterDatabaseStmt>();
                option(alter.options, c"tablespace").map(|_| alter.dbname)
            }
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = &*node.cast::<pg_sys::RenameStmt>();
                let of_database = rename.renameType == pg_sys::ObjectType::OBJECT_DATABASE;
                of_database.then_some(rename.subname)
            }
            _ => None,
        }
    };
    let Some(name) = name.filter(|name| !name.is_null()) else { return };
    // SAFETY: a catalog look-up inside the statement's transaction, by a C string of its tree.
    let database = unsafe { pg_sys::get_database_oid(name, true) };
    // SAFETY: a statement with a tag; asks the catalogs.
    unsafe {
        let kind = (*(*statement).utilityStmt).type_;
        if database != Oid::INVALID && may_have(kind, database) {
            let told = (statements.alone)(database);
            if kind == pg_sys::NodeTag::T_DropdbStmt {
                await_end(told);
            }
        }
    }
    (statements.databases)();
}

/// Waits for the end of processes that have been told to end, as long as PostgreSQL waits for those that are connected. It does so
/// itself, but for DROP DATABASE … WITH (FORCE), which first asks whether its caller may end whoever is connected.
fn await_end(mut pids: Vec<i32>) {
    for _ in 0..500 {
        // SAFETY: looks into shared memory.
        pids.retain(|pid| unsafe { !pg_sys::BackendPidGetProc(*pid).is_null() });
        if pids.is_empty() {
            return;
        }
        super::xact::sleep(10);
    }
}

/// Whether the current user owns the extension: nobody else may drop or update it.
///
/// # Safety
/// Inside a transaction.
unsafe fn owns_extension(extension: &CStr) -> bool {
    // SAFETY: catalog look-ups by a C string that lives through the calls.
    unsafe {
        let oid = pg_sys::get_extension_oid(extension.as_ptr(), true);
        #[cfg(feature = "pg15")]
        let owns = |user| pg_sys::pg_extension_ownercheck(oid, user);
        #[cfg(not(feature = "pg15"))]
        let owns = |user| pg_sys::object_ownercheck(pg_sys::ExtensionRelationId, oid, user);
        oid != Oid::INVALID && owns(pg_sys::GetUserId())
    }
}

/// Whether the current user may make databases. Not every minor release of 15 tells that by a function of its own.
///
/// # Safety
/// Inside a transaction.
unsafe fn may_create() -> bool {
    // SAFETY: the cache's entry is read while it is held.
    unsafe {
        let (cache, user) = (pg_sys::SysCacheIdentifier::AUTHOID as i32, pg_sys::GetUserId());
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(user));
        if tuple.is_null() {
            return false;
        }
        let role = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_authid>();
        let may = role.rolsuper || role.rolcreatedb;
        pg_sys::ReleaseSysCache(tuple);
        may
    }
}

/// Whether anybody may copy a database who may make one.
///
/// # Safety
/// Inside a transaction.
unsafe fn is_template(database: Oid) -> bool {
    // SAFETY: the cache's entry is read while it is held.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(database));
        if tuple.is_null() {
            return false;
        }
        let found =
            (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>()).datistemplate;
        pg_sys::ReleaseSysCache(tuple);
        found
    }
}

/// Whether the current user may run a statement of this kind at all: nobody else has others leave.
///
/// # Safety
/// Inside a transaction.
unsafe fn may_have(kind: pg_sys::NodeTag, database: Oid) -> bool {
    // SAFETY: catalog look-ups.
    unsafe {
        use pg_sys::NodeTag::{T_CreatedbStmt, T_RenameStmt};
        if matches!(kind, T_CreatedbStmt | T_RenameStmt) && !may_create() {
            return false;
        }
        if kind == T_CreatedbStmt && is_template(database) {
            return true;
        }
        let user = pg_sys::GetUserId();
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(database, user);
        #[cfg(not(feature = "pg15"))]
        pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, user)
    }
}

/// Whether a statement drops or updates this extension.
///
/// # Safety
/// A utility statement.
unsafe fn names_extension(node: *mut pg_sys::Node, extension: &CStr) -> bool {
    // SAFETY: the caller's; the fields are as the parser has set them: a list of names, as nodes.
    unsafe {
        match (*node).type_ {
            pg_sys::NodeTag::T_AlterExtensionStmt => {
                CStr::from_ptr((*node.cast::<pg_sys::AlterExtensionStmt>()).extname) == extension
            }
            pg_sys::NodeTag::T_DropStmt => {
                let drop = &*node.cast::<pg_sys::DropStmt>();
                let names = PgList::<pg_sys::String>::from_pg(drop.objects);
                drop.removeType == pg_sys::ObjectType::OBJECT_EXTENSION
                    && names.iter_ptr().any(|name| CStr::from_ptr((*name).sval) == extension)
            }
            _ => false,
        }
    }
}

/// The option of this name.
///
/// # Safety
/// A list of DefElem.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: the caller's; each has a name.
    unsafe {
        let options = PgList::<pg_sys::DefElem>::from_pg(options);
        options.iter_ptr().find(|option| CStr::from_ptr((**option).defname) == name)
    }
}
