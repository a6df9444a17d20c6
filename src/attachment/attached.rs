//! The attachment, resolved: tables, columns and indexes by their numbers, and what keeps it from being trusted.
//!
//! Invariant: nothing here changes once it is made, and a way back is made once. What was true when it was loaded stays so in it, and whoever
//! uses it asks the room whether it is still the newest.

use super::walk::Walk;
use crate::definition::{self, Definition, Link, Sql, Step};
use crate::error::Error;
use crate::pg::scan::{self, Epochs, KeyHash, Keys, UniqueIndexLookup};
use crate::pg::trigger::Column;
use crate::pg::{Oid, catalog};
use std::cell::OnceCell;
use std::rc::Rc;

/// Why no stored document may be trusted although the configuration is there.
#[derive(Clone, Debug)]
pub enum Degraded {
    /// Triggers of ours that are missing or not ENABLE ALWAYS.
    Triggers(Vec<String>),
    /// Something that attach() mends or names, in words.
    Problem(String),
    /// Something that attach() does not change, in words, and what ends it.
    Unfit { why: String, advice: String },
}

impl Degraded {
    /// Why, in words.
    pub fn reason(&self) -> String {
        match self {
            Degraded::Triggers(missing) => {
                format!("triggers are missing or not ENABLE ALWAYS: {}", missing.join(", "))
            }
            Degraded::Problem(why) | Degraded::Unfit { why, .. } => why.clone(),
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Degraded::Unfit { advice, .. } => advice.clone(),
            _ => "SELECT profile_cache.attach(), with the same arguments, mends it or says what to do."
                .into(),
        }
    }
}

/// A used table, resolved.
#[derive(Debug)]
pub struct UsedTable {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    pub links: Vec<UsedLink>,
}

#[derive(Debug)]
pub struct UsedLink {
    pub link: Link,
    pub columns: Vec<Column>,
    /// Columns whose change may change a document, seen this way.
    pub watched: Vec<Column>,
    /// For a member's link: the profile's columns that it references.
    pub targets: Vec<i16>,
    /// How to find the profile of a member's row without SQL.
    pub probe: Option<UniqueIndexLookup>,
    /// One of the columns is an enum: its value's text may come to mean another value.
    pub has_enum: bool,
    /// The way back, made when it is first asked for; see [`UsedLink::walk`].
    pub(super) walk: OnceCell<Option<Walk>>,
}

impl UsedLink {
    /// The way back, if there is one.
    pub fn walk(&self, a: &Attached) -> Option<&Walk> {
        let table = |schema: &str, name: &str| {
            let found = a.tables.iter().find(|t| t.schema == schema && t.name == name);
            found.map(|t| t.oid)
        };
        let way = || Walk::of(a.profile, &self.link, &self.columns, table);
        self.walk.get_or_init(way).as_ref()
    }
}

/// A way in which a pending key may name a profile: the key, or what members refer to.
#[derive(Debug)]
pub struct Naming {
    pub step: Step,
    /// The columns' types, as SQL writes them.
    pub types: Vec<String>,
    /// The columns' numbers and types.
    pub columns: Vec<(i16, Oid)>,
    /// A hash of the columns' names.
    pub set: i64,
    /// Equal values have one text, so that a hash of it finds them.
    pub plain: bool,
}

impl Naming {
    pub(super) fn of(profile: Oid, step: Step, types: Vec<String>) -> Naming {
        let names = step.column_names();
        let columns = names.iter().filter_map(|name| {
            let number = catalog::column_number(profile, name)?;
            let oid = catalog::base_type(catalog::column_type(profile, number));
            Some((number, oid))
        });
        let columns: Vec<(i16, Oid)> = columns.collect();
        let plain = columns.len() == names.len()
            && step.columns.iter().all(|c| c.operator == definition::BUILT_IN_EQUALS)
            && columns.iter().all(|(number, _)| catalog::has_one_text(profile, *number));
        Naming { set: scan::hash(&names), plain, columns, types, step }
    }

    /// How a pending key with these values stands in the table.
    pub fn hash<S: AsRef<str>>(&self, values: &[S]) -> KeyHash {
        let mut hash = 0;
        if self.plain {
            // Padding of character(n) does not count.
            let texts = values.iter().zip(&self.columns).map(|(value, (_, oid))| {
                let padded = *oid == pgrx::pg_sys::BPCHAROID;
                let text = value.as_ref();
                if padded { text.trim_end_matches(' ') } else { text }
            });
            hash = scan::hash(&texts.collect::<Vec<_>>());
        }
        KeyHash { set: self.set, hash }
    }
}

/// Numbers of the four columns that a profile's row has of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheColumns {
    pub document: i16,
    pub valid_until: i16,
    pub epoch: i16,
    pub updated_at: i16,
}

impl CacheColumns {
    /// In the order of [`COLUMNS`](crate::definition::COLUMNS), which is that of
    /// [`Stored`](crate::pg::tuple::Stored) too.
    pub fn all(self) -> [i16; 4] {
        [self.document, self.valid_until, self.epoch, self.updated_at]
    }
}

/// The attachment, resolved.
#[derive(Debug)]
pub struct Attached {
    pub profile: Oid,
    pub profile_name: String,
    pub owner: Oid,
    pub document: Oid,
    pub definition: Definition,
    pub sql: Sql,
    /// A hash of the definition's words: a pending epoch bears that of the definition it was written under.
    pub words: i64,
    pub key: i16,
    pub columns: CacheColumns,
    /// The same four, as comparing rows needs them.
    pub compared: [Column; 4],
    /// Empty where the definition cannot be resolved.
    pub tables: Vec<UsedTable>,
    /// What computing reads, and so locks: the tables, their indexes, the view and those nested in it.
    pub read: Vec<Oid>,
    /// Stamps below are of another attachment or another definition, in any snapshot; none is trusted
    /// while that has no number yet.
    pub trusted_from: Option<i64>,
    pub degraded: Option<Degraded>,
    /// How to find a profile by its key without SQL.
    pub probe: Option<UniqueIndexLookup>,
    pub epochs: Epochs,
    pub keys: Keys,
    /// Every way in which a pending key may name a profile.
    pub naming: Vec<Naming>,
    /// Their sets, in order.
    pub sets: Vec<i64>,
    /// Indexes of the profile table whose code we may not run.
    pub foreign_indexes: Vec<Oid>,
    /// Writing a row evaluates the app's own code, or meets an index on our columns.
    pub write_may_fail: bool,
    /// There is an index by which expired documents are found.
    pub expiry_indexed: bool,
}

impl Attached {
    pub fn table(&self, oid: Oid) -> Option<&UsedTable> {
        self.tables.iter().find(|t| t.oid == oid)
    }

    /// Whether rows of the profile table are read and written as `other` does it.
    pub fn same_columns(&self, other: &Attached) -> bool {
        let same = std::ptr::eq(self, other);
        same || self.profile == other.profile
            && self.key == other.key
            && self.columns == other.columns
            && self.foreign_indexes == other.foreign_indexes
            && self.write_may_fail == other.write_may_fail
            && self.definition == other.definition
    }

    /// Whether the same changes are followed in the same ways as by `other`.
    pub fn follows_as(self: &Rc<Attached>, other: &Rc<Attached>) -> bool {
        Rc::ptr_eq(self, other) || self.definition.follows_as(&other.definition)
    }

    /// The tables whose changes are followed.
    pub fn used(&self) -> Vec<Oid> {
        let tables = self.tables.iter().map(|t| t.oid);
        tables.chain([self.profile]).collect()
    }

    /// How the profile's key names it.
    pub fn key_naming(&self) -> &Naming {
        &self.naming[0]
    }

    /// How what this step finds is named.
    pub fn naming_of(&self, step: &Step) -> &Naming {
        let same = |n: &&Naming| n.step.column_names() == step.column_names();
        self.naming.iter().find(same).unwrap_or(&self.naming[0])
    }

    /// The columns of the profile whose change makes its own document another.
    pub fn own_columns(&self) -> &[Column] {
        let links = self.table(self.profile).map_or(&[][..], |t| &t.links);
        let own = links.iter().find(|l| l.link.member);
        own.map_or(&[], |l| &l.watched)
    }
}

/// The state of this database.
#[derive(Clone)]
pub enum State {
    None,
    Ready(Rc<Attached>),
    /// Attached, but something that every read needs is gone.
    Gone(Gone),
}

/// What is gone of an attachment that cannot be read at all.
#[derive(Clone)]
pub enum Gone {
    Profile,
    Document,
    Columns,
    Definition,
    /// Reading the view could run another role's code as the tables' owner: why, and what to do.
    Unsafe {
        why: String,
        hint: Option<String>,
    },
    /// The database has this encoding.
    Encoding(String),
    /// The SQL objects are of a version whose tables have this layout, which is not the library's.
    Layout(Option<i64>),
}

impl Gone {
    pub fn error(self) -> Error {
        match self {
            Gone::Unsafe { why, hint } => Error::Unsafe { why, hint },
            Gone::Encoding(encoding) => Error::Encoding(encoding),
            Gone::Layout(layout) => Error::Layout(layout),
            Gone::Profile => Error::ProfileGone,
            Gone::Document => Error::DocumentGone,
            Gone::Columns => Error::ColumnsGone,
            Gone::Definition => Error::DocumentBroken("Its definition cannot be read.".into()),
        }
    }
}
