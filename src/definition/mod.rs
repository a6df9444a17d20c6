//! What the document depends on, and the SQL that follows from it: which tables and columns, how a change of
//! theirs leads to profiles, which triggers watch them.
//!
//! May touch nothing of the server: pure, told everything, and so tested by plain unit tests. Invariant: every
//! identifier is quoted, every function and operator is qualified, so that the texts mean the same under any
//! search_path.
//!
//! - here: the definition itself, as the attachment records it
//! - `triggers`: the triggers of ours that each table has
//! - `sql`: the statements on the profile table and the routes to it
//! - `quote`: names in SQL and in messages
//! - `words`: a route, for people

mod quote;
mod sql;
mod triggers;
mod words;

pub use quote::{collate, display, display_identifier, qualified, quote_identifier, quote_literal};
pub use sql::{LookedAt, Sql, by_column, value_columns, value_rows};
pub use triggers::{COPYING, DISTRUST, Trigger, triggers};

use quote::{is_operator, is_qualified, is_type};
use serde::{Deserialize, Serialize};

/// The fillfactor that is recommended for the profile table: with it 99 of 100 new versions of a row stay on its page, also
/// where it is the profile itself that changes, which writes two (`make bench`, phase `bloat`).
pub const FILLFACTOR: i64 = 70;

/// A table's fillfactor, of the option's text as it was given: the server reads 70.0, 7e1 and 0x46 as well as 70.
pub fn fillfactor(option: Option<&str>) -> i64 {
    const DEFAULT: i64 = 100;
    let Some(text) = option.map(str::trim) else { return DEFAULT };
    let based = |prefix: &str, base| i64::from_str_radix(text.strip_prefix(prefix)?, base).ok();
    let octal = (text.len() > 1).then(|| based("0", 8)).flatten();
    let number = octal.or(based("0x", 16)).or(based("0o", 8)).or(based("0b", 2));
    let fraction = || text.parse().ok().map(|f: f64| f.round_ties_even() as i64);
    number.or_else(fraction).unwrap_or(DEFAULT)
}

/// The key's type.
pub const UUID: &str = "pg_catalog.uuid";
/// The equality of built-in types.
pub const BUILT_IN_EQUALS: &str = "OPERATOR(pg_catalog.=)";
/// In [`Link::everyone`]: any value at all.
pub const ANY_VALUE: &str = "*";
/// The columns added to the profile table, in the order that the code indexes them.
pub const COLUMNS: [(&str, &str); 4] = [
    ("cached_profile", "jsonb"),
    ("cached_profile_valid_until", "timestamp with time zone"),
    ("cached_profile_epoch", "bigint"),
    ("profile_cache_updated_at", "timestamp with time zone"),
];

/// Everything the document depends on, by name.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Definition {
    /// The profile table's uuid column, and the name that the view gives it.
    pub key: String,
    pub view_key: String,
    /// Whether the view says until when a document is valid.
    pub expires: bool,
    /// Whether it reaches code or types that are not the server's: then each session asks whose they are.
    #[serde(default = "yes")]
    pub own_code: bool,
    /// The used tables; the profile table first.
    pub tables: Vec<Table>,
}

fn yes() -> bool {
    true
}

impl Definition {
    /// The links by which rows of a table lead to profiles from these columns: numbers of a table, and of a link of its. Not a
    /// constant's, which leads to all.
    pub fn links_by(&self, schema: &str, table: &str, columns: &[String]) -> Vec<(usize, usize)> {
        let by = |l: &Link| !l.route.is_empty() && l.columns.iter().map(|c| &c.column).eq(columns);
        let tables = self.tables.iter().enumerate();
        let tables = tables.filter(|(_, t)| t.schema == schema && t.name == table);
        let links = |(t, of): (usize, &Table)| {
            let links = of.links.iter().enumerate().filter(|(_, link)| by(link));
            links.map(|(l, _)| (t, l)).collect::<Vec<_>>()
        };
        tables.flat_map(links).collect()
    }

    /// In what words a change is written down, and what they mean: the same text for definitions that follow the same
    /// changes in the same ways.
    pub fn words(&self) -> String {
        let tables = self.tables.iter().map(|t| (&t.schema, &t.name, &t.links));
        let tables = tables.collect::<Vec<_>>();
        serde_json::to_string(&(&self.key, &self.view_key, self.expires, tables))
            .unwrap_or_default()
    }

    /// Whether the same changes are followed in the same ways, whatever has been proven of it.
    pub fn follows_as(&self, other: &Definition) -> bool {
        self.words() == other.words()
    }

    /// Whether the parts of it that stand in SQL unquoted, types and operators, are names and nothing
    /// else. It comes from a table, and a table may have been written by hand.
    pub fn is_only_names(&self) -> bool {
        let links = || self.tables.iter().flat_map(|t| &t.links);
        let mut types = links().flat_map(|l| &l.columns);
        let mut steps = links().flat_map(|l| &l.route).flat_map(|s| &s.columns);
        types.all(|c| is_type(&c.r#type) && is_type(&c.target_type))
            && steps.all(|c| {
                is_operator(&c.operator) && (c.collation.is_empty() || is_qualified(&c.collation))
            })
    }
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub links: Vec<Link>,
    /// The view shows whole rows of it, and so a column that comes later.
    #[serde(default = "yes")]
    pub whole: bool,
    /// Columns that a unique index held unique when that was proven.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<Vec<String>>,
    /// The same of partial unique indexes, those that it was proven by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<Partial>,
}

/// Columns that are unique among the rows of which a predicate is true.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Partial {
    pub columns: Vec<String>,
    /// Those that the predicate asks of.
    pub tested: Vec<String>,
    /// As SQL writes it, with every name qualified.
    pub predicate: String,
}

/// One way from a changed row to the profiles that show it: by some of its columns to the first
/// step, then step by step. The view may show one table in several ways.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Link {
    pub columns: Vec<LinkColumn>,
    /// Columns whose change may change a document, seen this way.
    pub watched: Vec<String>,
    /// The profile's own row, or a row that leads to one profile at most, by columns that are unique there: the
    /// lock on the profile's row orders such changes, so they are computed at once.
    pub member: bool,
    /// Values of the one column whose row every profile may show; there is no route then. Without a column, every
    /// row of the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub everyone: Vec<String>,
    pub route: Vec<Step>,
    /// The view comes to the table more than once by it: from a row perhaps to the same row again.
    #[serde(default = "yes")]
    pub again: bool,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct LinkColumn {
    pub column: String,
    /// Its type, as SQL writes it.
    pub r#type: String,
    /// The type of the column that it is compared with.
    pub target_type: String,
}

/// A step: the rows of a table whose columns equal what the step before leads to.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub schema: String,
    pub table: String,
    pub columns: Vec<StepColumn>,
    /// The columns that lead on; the last step, the profile, has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct StepColumn {
    pub column: String,
    /// The foreign key's equality, qualified.
    pub operator: String,
    /// Its collation, qualified, where the column that leads to it has another one: PostgreSQL does not choose
    /// between two. Values that are equal by one are so by the other then, or it were no tie.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub collation: String,
}

impl Link {
    /// Whether a changed row with this value of the column concerns every profile. Padding of
    /// character(n) does not count.
    pub fn concerns_everyone(&self, value: &str) -> bool {
        self.everyone.iter().any(|e| e == ANY_VALUE || e.trim_end() == value.trim_end())
    }

    /// Whether each row of the table is shown by every profile.
    pub fn is_whole(&self) -> bool {
        self.columns.is_empty() && !self.everyone.is_empty()
    }

    /// The step of a member's link.
    pub fn direct(&self) -> Option<&Step> {
        self.route.first().filter(|_| self.member)
    }

    pub fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|c| c.column.clone()).collect()
    }

    pub fn types(&self) -> Vec<String> {
        self.columns.iter().map(|c| c.r#type.clone()).collect()
    }

    pub fn target_types(&self) -> Vec<String> {
        self.columns.iter().map(|c| c.target_type.clone()).collect()
    }
}

impl Step {
    /// The profile, by one column of it.
    pub fn profile(column: &str, operator: &str) -> Step {
        Step {
            schema: String::new(),
            table: String::new(),
            columns: vec![StepColumn {
                column: column.to_owned(),
                operator: operator.to_owned(),
                collation: String::new(),
            }],
            next: vec![],
        }
    }

    pub fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|c| c.column.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fillfactor_is_read_as_the_server_reads_it() {
        assert_eq!(fillfactor(None), 100);
        for text in ["70", "70.0", "7e1", "0x46", "0106", " 70", "69.5"] {
            assert_eq!(fillfactor(Some(text)), 70, "{text}");
        }
        assert_eq!(fillfactor(Some("?")), 100);
    }
}
