//! What an event trigger is told: the commands that have ended, and what they have dropped.
//!
//! Invariant: nothing is looked up; a command that is not recognized is [`Kind::Other`].

use super::Oid;
use super::spi::{self, Row, Snapshot};
use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

/// An object that a command was about, or has dropped.
#[derive(Debug)]
pub struct Told {
    /// The command's tag; of a dropped object its type.
    pub tag: String,
    pub class: Oid,
    pub object: Oid,
    /// It is a column of the object.
    pub column: bool,
    /// It goes with the session.
    pub temporary: bool,
    /// Of a dropped trigger: its table's schema and name, and its own.
    pub trigger: Vec<String>,
    /// Its parts, of ALTER TABLE; one of any other command.
    pub parts: Vec<Part>,
}

#[derive(Debug)]
pub struct Part {
    pub kind: Kind,
    /// The trigger, where it is about one.
    pub name: String,
    /// Another relation that it is about.
    pub other: Oid,
}

/// What a command does to an object, as far as it matters to who reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// How a table is stored, planned and written, and not what is in it.
    Storage,
    /// A column comes.
    NewColumn,
    /// A column goes.
    OldColumn,
    /// A constraint or an index comes, or holds for more rows than before.
    NewConstraint,
    /// One goes.
    OldConstraint,
    /// One is enforced in another way.
    Constraint,
    /// One trigger is enabled or disabled.
    Trigger,
    /// How a function is planned: its cost and the like.
    Planned,
    Other,
}

/// The commands that have just ended.
pub fn commands() -> Vec<Told> {
    let sql = "SELECT c.classid, c.objid, c.objsubid <> 0, c.command_tag, coalesce(c.schema_name, c.object_identity), c.command \
         FROM pg_event_trigger_ddl_commands() AS c";
    spi::all(sql, Snapshot::Latest, &[], |r| Told { parts: parts(r, 6), ..told(r) })
}

/// What they have dropped.
pub fn dropped() -> Vec<Told> {
    let sql = "SELECT d.classid, d.objid, d.objsubid <> 0, d.object_type, CASE WHEN d.is_temporary THEN 'pg_temp' \
          ELSE coalesce(d.schema_name, d.object_identity) END, CASE d.object_type WHEN 'trigger' THEN d.address_names END \
         FROM pg_event_trigger_dropped_objects() AS d";
    spi::all(sql, Snapshot::Latest, &[], |r| Told {
        trigger: r.texts(6).unwrap_or_default(),
        ..told(r)
    })
}

fn told(r: &Row) -> Told {
    let place = r.text(5).unwrap_or_default();
    Told {
        class: r.oid(1).unwrap_or(Oid::INVALID),
        object: r.oid(2).unwrap_or(Oid::INVALID),
        column: r.bool(3) == Some(true),
        tag: r.text(4).unwrap_or_default(),
        temporary: place
            .trim_start_matches('(')
            .strip_prefix("pg_temp")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        parts: vec![],
        trigger: vec![],
    }
}

fn parts(r: &Row, column: i32) -> Vec<Part> {
    let other = || Part { kind: Kind::Other, name: String::new(), other: Oid::INVALID };
    let Some(command) = r.typed(column, pg_sys::PG_DDL_COMMANDOID) else {
        return vec![other()];
    };
    // SAFETY: a pg_ddl_command is a pointer to what the server has collected of the command, which lives
    // as long as the event trigger runs; which member of the union is set, its type says.
    unsafe {
        let command: *mut pg_sys::CollectedCommand = command.cast_mut_ptr();
        match (*command).type_ {
            pg_sys::CollectedCommandType::SCT_AlterTable => {
                PgList::<pg_sys::CollectedATSubcmd>::from_pg((*command).d.alterTable.subcmds)
                    .iter_ptr()
                    .map(|part| table_part(part))
                    .collect()
            }
            pg_sys::CollectedCommandType::SCT_Simple => {
                vec![Part { kind: simple((*command).parsetree), ..other() }]
            }
            _ => vec![other()],
        }
    }
}

/// # Safety
/// `part` is what the server has collected of a part of ALTER TABLE.
unsafe fn table_part(part: *mut pg_sys::CollectedATSubcmd) -> Part {
    // SAFETY: as said; the parse tree's tag says whether it is an AlterTableCmd.
    unsafe {
        let command: *mut pg_sys::AlterTableCmd = (*part).parsetree.cast();
        if command.is_null() || (*command).type_ != pg_sys::NodeTag::T_AlterTableCmd {
            return Part { kind: Kind::Other, name: String::new(), other: Oid::INVALID };
        }
        let address = (*part).address;
        let relation = address.classId == pg_sys::RelationRelationId && address.objectSubId == 0;
        Part {
            kind: of_table((*command).subtype),
            name: text((*command).name),
            other: if relation { address.objectId } else { Oid::INVALID },
        }
    }
}

fn of_table(subtype: pg_sys::AlterTableType::Type) -> Kind {
    use pg_sys::AlterTableType as T;
    match subtype {
        T::AT_ColumnDefault | T::AT_DropNotNull | T::AT_SetNotNull | T::AT_SetStatistics | T::AT_SetOptions
        | T::AT_ResetOptions | T::AT_SetStorage | T::AT_SetCompression | T::AT_ClusterOn | T::AT_DropCluster
        | T::AT_DropOids | T::AT_SetTableSpace | T::AT_SetRelOptions | T::AT_ResetRelOptions
        | T::AT_ReAddComment | T::AT_ReplicaIdentity | T::AT_AddIdentity | T::AT_SetIdentity
        | T::AT_DropIdentity | T::AT_ReAddStatistics
        // Row security is nothing to the owner, unless it is forced.
        | T::AT_EnableRowSecurity | T::AT_DisableRowSecurity => Kind::Storage,
        T::AT_AddColumn => Kind::NewColumn,
        T::AT_DropColumn => Kind::OldColumn,
        T::AT_AddIndex | T::AT_AddConstraint | T::AT_ValidateConstraint | T::AT_AddIndexConstraint => {
            Kind::NewConstraint
        }
        T::AT_DropConstraint => Kind::OldConstraint,
        T::AT_AlterConstraint => Kind::Constraint,
        T::AT_EnableTrig | T::AT_EnableAlwaysTrig | T::AT_EnableReplicaTrig | T::AT_DisableTrig => {
            Kind::Trigger
        }
        #[cfg(feature = "pg15")]
        T::AT_CheckNotNull => Kind::Storage,
        #[cfg(feature = "pg15")]
        T::AT_AddColumnRecurse => Kind::NewColumn,
        #[cfg(feature = "pg15")]
        T::AT_DropColumnRecurse => Kind::OldColumn,
        #[cfg(feature = "pg15")]
        T::AT_AddConstraintRecurse | T::AT_ValidateConstraintRecurse => Kind::NewConstraint,
        #[cfg(feature = "pg15")]
        T::AT_DropConstraintRecurse => Kind::OldConstraint,
        _ => Kind::Other,
    }
}

/// # Safety
/// `tree` is NULL or a parse tree.
unsafe fn simple(tree: *mut pg_sys::Node) -> Kind {
    const PLANNED: [&str; 4] = ["cost", "rows", "parallel", "leakproof"];
    // SAFETY: the node's tag says what it is; its actions are DefElems (gram.y).
    unsafe {
        if tree.is_null() || (*tree).type_ != pg_sys::NodeTag::T_AlterFunctionStmt {
            return Kind::Other;
        }
        let function: *mut pg_sys::AlterFunctionStmt = tree.cast();
        let planned = PgList::<pg_sys::DefElem>::from_pg((*function).actions)
            .iter_ptr()
            .all(|action| PLANNED.contains(&text((*action).defname).as_str()));
        if planned { Kind::Planned } else { Kind::Other }
    }
}

/// # Safety
/// `s` is NULL or a C string.
unsafe fn text(s: *const std::ffi::c_char) -> String {
    if s.is_null() {
        return String::new();
    }
    // SAFETY: as said.
    unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned()
}
