//! The statements on the attached profile table, and the conditions that lead from changed rows to its rows.
//!
//! Invariant: only what the definition says stands in them, quoted; every value is a parameter.

use super::{Definition, Link, LinkColumn, Step, StepColumn, collate, qualified, quote_identifier};

/// The statements on one attached profile table.
#[derive(Debug)]
pub struct Sql {
    profile: String,
    document: String,
    key: String,
    view_key: String,
    /// The columns whose texts name a profile.
    names: Vec<String>,
    /// $1: keys. Returns key, document, valid_until.
    pub compute: String,
    /// The same for one key in $1.
    pub compute_one: String,
    /// $1: one key. Returns the document.
    pub live: String,
}

/// The columns that [`Sql::stored`], [`Sql::sampled`] and [`Sql::compared`] return, numbered from 1.
pub struct LookedAt;

impl LookedAt {
    pub const EPOCH: i32 = 1;
    pub const VALID_UNTIL: i32 = 2;
    pub const UPDATED_AT: i32 = 3;
    pub const XMIN: i32 = 4;
    pub const NAMED: i32 = 5;
    pub const KEY: i32 = 6;
    /// The texts of the columns that name the row.
    pub const NAMES: i32 = 7;
    pub const DOCUMENT: i32 = 8;
    /// Of `compared` alone: the view's document, and how many rows it has for the key.
    pub const EXPECTED: i32 = 9;
    pub const VIEW_ROWS: i32 = 10;
}

impl Sql {
    pub fn new(profile: String, document: String, d: &Definition, names: Vec<String>) -> Sql {
        let view_key = quote_identifier(&d.view_key);
        let until = if d.expires { "v.valid_until" } else { "NULL::pg_catalog.timestamptz" };
        let rows = |columns: &str, keys: &str| {
            format!(
                "SELECT {columns} FROM {document} AS v WHERE v.{view_key} OPERATOR(pg_catalog.=) {keys}"
            )
        };
        let all = format!("v.{view_key}, v.document, {until}");
        Sql {
            compute: rows(&all, "ANY ($1)"),
            compute_one: rows(&all, "$1"),
            live: rows("v.document", "$1"),
            names,
            profile,
            document,
            key: quote_identifier(&d.key),
            view_key,
        }
    }

    /// $1, $2…: for each of the step's columns, an array of values. Returns ctid, key, the columns.
    pub fn find(&self, step: &Step) -> String {
        let columns: Vec<String> =
            step.columns.iter().map(|c| format!("p.{}", quote_identifier(&c.column))).collect();
        let mut conditions: Vec<String> = columns
            .iter()
            .zip(&step.columns)
            .enumerate()
            .map(|(i, (column, c))| format!("{column} {} ANY (${})", c.operator, i + 1))
            .collect();
        let n = columns.len();
        if n > 1 {
            // By an index those; and of them not the rows that mix values of different ones.
            conditions.push(format!(
                "EXISTS (SELECT FROM {} AS k({}) WHERE {})",
                array_rows(n, 1),
                value_columns(n),
                step.equals("p", "k")
            ));
        }
        format!(
            "SELECT p.ctid, p.{key}, {columns} FROM {table} AS p \
             WHERE {conditions}",
            key = self.key,
            table = self.profile,
            columns = columns.join(", "),
            conditions = conditions.join(" AND "),
        )
    }

    /// First an array of values for each of the step's columns that were asked for, then as many of
    /// the rows that were locked. Returns the numbers, from 1, of those not locked.
    pub fn not_locked(&self, step: &Step) -> String {
        let n = step.columns.len();
        format!(
            "SELECT k.n FROM {asked} WITH ORDINALITY AS k({columns}, n) WHERE NOT EXISTS \
             (SELECT FROM {locked} AS r({columns}) WHERE {equal})",
            asked = array_rows(n, 1),
            locked = step.values_of(&self.profile, n + 1),
            columns = value_columns(n),
            equal = step.equal("r", "k"),
        )
    }

    /// $1: one key. Whether the current user can see the row's stored document.
    pub fn visible(&self) -> String {
        format!(
            "SELECT p.cached_profile IS NULL FROM {table} AS p WHERE p.{key} OPERATOR(pg_catalog.=) $1",
            table = self.profile,
            key = self.key,
        )
    }

    /// $1, $2: full transaction ids, less than 2^32 apart. Keys of the rows whose versions are of transactions from the one on
    /// and below the other; or of such as have the same low bits.
    pub fn written_between(&self) -> String {
        format!(
            "SELECT p.{key} FROM {table} AS p WHERE ($2 OPERATOR(pg_catalog.-) p.xmin::pg_catalog.text::pg_catalog.int8 \
              OPERATOR(pg_catalog.&) 4294967295) OPERATOR(pg_catalog.<=) ($2 OPERATOR(pg_catalog.-) $1)",
            table = self.profile,
            key = self.key,
        )
    }

    /// What the reader's rule looks at, column by column as [`LookedAt`] numbers it. `named`: a condition on p, or
    /// false: whether a pending key that has no hash names the row.
    fn looked_at(&self, named: &str) -> String {
        let names = self
            .names
            .iter()
            .map(|column| format!("coalesce(p.{}::pg_catalog.text, '')", quote_identifier(column)));
        let names = names.collect::<Vec<_>>().join(", ");
        let key = format!("p.{}", self.key);
        let names = format!("ARRAY[{names}]::pg_catalog.text[]");
        let mut columns = [
            (LookedAt::EPOCH, "p.cached_profile_epoch"),
            (LookedAt::VALID_UNTIL, "p.cached_profile_valid_until"),
            (LookedAt::UPDATED_AT, "p.profile_cache_updated_at"),
            (LookedAt::XMIN, "p.xmin::pg_catalog.text::pg_catalog.int8"),
            (LookedAt::NAMED, named),
            (LookedAt::KEY, &key),
            (LookedAt::NAMES, &names),
            (LookedAt::DOCUMENT, "p.cached_profile"),
        ];
        columns.sort_unstable_by_key(|(number, _)| *number);
        columns.map(|(_, column)| column).join(", ")
    }

    /// $1: one key, further parameters as `named` needs them.
    pub fn stored(&self, named: &str) -> String {
        format!(
            "SELECT {} FROM {} AS p WHERE p.{} OPERATOR(pg_catalog.=) $1",
            self.looked_at(named),
            self.profile,
            self.key
        )
    }

    /// $1: the last key of the page before or NULL, $2: page size. The keys of the page.
    pub fn page(&self) -> String {
        format!(
            "SELECT p.{key} FROM {table} AS p WHERE ($1 IS NULL OR p.{key} OPERATOR(pg_catalog.>) $1) \
             AND p.{key} IS NOT NULL ORDER BY p.{key} LIMIT $2",
            table = self.profile,
            key = self.key,
        )
    }

    /// $1: keys, further parameters as `named` needs them. Adds the view's document and the number of its rows
    /// for the key.
    pub fn compared(&self, named: &str) -> String {
        format!(
            "SELECT {looked_at}, v.document, v.n FROM {table} AS p \
             LEFT JOIN LATERAL (SELECT (pg_catalog.array_agg(d.document))[1] AS document, pg_catalog.count(*) AS n \
              FROM {view} AS d WHERE d.{view_key} OPERATOR(pg_catalog.=) p.{key}) AS v ON true \
             WHERE p.{key} OPERATOR(pg_catalog.=) ANY ($1) ORDER BY p.{key}",
            looked_at = self.looked_at(named),
            table = self.profile,
            key = self.key,
            view = self.document,
            view_key = self.view_key,
        )
    }

    /// $1: percentage of the table's blocks. One key of them.
    pub fn random_key(&self) -> String {
        format!(
            "SELECT p.{key} FROM {table} AS p TABLESAMPLE SYSTEM ($1) WHERE p.{key} IS NOT NULL \
             ORDER BY pg_catalog.random() LIMIT 1",
            key = self.key,
            table = self.profile,
        )
    }

    /// $1: percentage of the table's blocks.
    pub fn sampled(&self, named: &str) -> String {
        format!(
            "SELECT {} FROM {} AS p TABLESAMPLE SYSTEM ($1) WHERE p.{} IS NOT NULL",
            self.looked_at(named),
            self.profile,
            self.key
        )
    }

    /// Of a document in [`Sql::window`], that it is older than the pending epoch $3, or from beyond the current one, $4.
    pub const OLD: &str = "p.cached_profile_epoch IS NULL OR p.cached_profile_epoch OPERATOR(pg_catalog.<) $3 \
         OR p.cached_profile_epoch OPERATOR(pg_catalog.>) $4";

    /// That no reader would trust it, whatever is pending. $3: the first epoch, $4: the current one.
    pub const UNTRUSTED: &str = "p.cached_profile_epoch IS NULL OR p.cached_profile_epoch OPERATOR(pg_catalog.<) $3 \
         OR p.cached_profile_epoch OPERATOR(pg_catalog.>) $4 \
         OR p.cached_profile_valid_until OPERATOR(pg_catalog.<=) pg_catalog.now() \
          AND p.cached_profile_valid_until OPERATOR(pg_catalog.>) p.profile_cache_updated_at \
         OR p.profile_cache_updated_at OPERATOR(pg_catalog.>) pg_catalog.now()";

    /// The same of a row of [`Sql::among`], or that a stamp is not of the current epoch: $2, $3.
    pub const UNTRUSTED_OR_OLD: &str = "p.cached_profile_epoch IS DISTINCT FROM $3 OR p.cached_profile_epoch OPERATOR(pg_catalog.<) $2 \
         OR p.cached_profile_valid_until OPERATOR(pg_catalog.<=) pg_catalog.now() \
          AND p.cached_profile_valid_until OPERATOR(pg_catalog.>) p.profile_cache_updated_at";

    /// $1: keys. Those of which `wanted` holds.
    pub fn among(&self, wanted: &str) -> String {
        format!(
            "SELECT p.{key} FROM {table} AS p WHERE p.{key} OPERATOR(pg_catalog.=) ANY ($1) AND ({wanted})",
            key = self.key,
            table = self.profile,
        )
    }

    /// When the next document expires of those that have not.
    pub fn next_to_expire(&self) -> String {
        format!(
            "SELECT p.cached_profile_valid_until FROM {table} AS p \
             WHERE p.cached_profile_valid_until OPERATOR(pg_catalog.>) pg_catalog.now() ORDER BY 1 LIMIT 1",
            table = self.profile,
        )
    }

    /// $1: last key or NULL, $2: how many. The next keys, and whether `wanted` holds.
    pub fn window(&self, wanted: &str) -> String {
        format!(
            "SELECT p.{key}, {wanted} FROM {table} AS p WHERE ($1 IS NULL OR p.{key} OPERATOR(pg_catalog.>) $1) \
             AND p.{key} IS NOT NULL ORDER BY p.{key} LIMIT $2",
            key = self.key,
            table = self.profile,
        )
    }

    /// $1: a time or NULL, $2: a key or NULL, $3: how many. Documents that have expired since they were computed: when, and
    /// their keys, in that order. One that had expired by then is never used, whatever comes
    /// out of the view later: it has said that it is to be read live.
    pub fn expired(&self) -> String {
        format!(
            "SELECT p.cached_profile_valid_until, p.{key} FROM {table} AS p \
             WHERE p.cached_profile_valid_until OPERATOR(pg_catalog.<=) pg_catalog.now() AND p.{key} IS NOT NULL \
             AND p.cached_profile_valid_until OPERATOR(pg_catalog.>) p.profile_cache_updated_at \
             AND ($1 IS NULL OR p.cached_profile_valid_until OPERATOR(pg_catalog.>=) $1) \
             AND ($1 IS NULL OR ROW(p.cached_profile_valid_until, p.{key}) OPERATOR(pg_catalog.>) ROW($1, $2)) \
             ORDER BY 1, 2 LIMIT $3",
            key = self.key,
            table = self.profile,
        )
    }

    /// $1: values of a link's column as text. The same as values of the column it leads to.
    pub fn as_target(column: &LinkColumn) -> String {
        format!(
            "SELECT (u.v::{}::{})::pg_catalog.text FROM pg_catalog.unnest($1) WITH ORDINALITY AS u(v, n) \
             ORDER BY u.n",
            column.r#type, column.target_type
        )
    }

    /// $1: keys, $2: a time for each, as text. Those with a document computed since, or no row.
    pub fn computed_since(&self) -> String {
        format!(
            "SELECT f.k FROM ROWS FROM (pg_catalog.unnest($1), \
              pg_catalog.unnest($2::pg_catalog.text[]::pg_catalog.timestamptz[])) AS f(k, at) \
             WHERE NOT EXISTS (SELECT FROM {table} AS p WHERE p.{key} OPERATOR(pg_catalog.=) f.k \
              AND (p.cached_profile_epoch IS NULL OR p.profile_cache_updated_at OPERATOR(pg_catalog.<) f.at))",
            key = self.key,
            table = self.profile,
        )
    }

    /// $1: last key or NULL, $2: page size, $3: the pending epoch; further parameters as
    /// `concerned`, a condition on p, needs them. Keys with an older stamp.
    pub fn older(&self, concerned: &str) -> String {
        format!(
            "SELECT p.{key} FROM {table} AS p WHERE ($1 IS NULL OR p.{key} OPERATOR(pg_catalog.>) $1) \
             AND p.{key} IS NOT NULL \
             AND (p.cached_profile_epoch IS NULL OR p.cached_profile_epoch OPERATOR(pg_catalog.<) $3) AND ({concerned}) \
             ORDER BY p.{key} LIMIT $2",
            key = self.key,
            table = self.profile,
        )
    }

    /// The profiles that a link leads to from values given in the parameters from `$n` on, an array
    /// of texts for each column.
    pub fn dependents(&self, link: &Link, n: usize) -> String {
        let types = link.types();
        let Some((last, steps)) = link.route.split_last() else {
            return "true".into();
        };
        let Some((first, rest)) = steps.split_first() else {
            return last.among("p", &types, n);
        };
        let mut from = format!("{} AS s0", qualified(&first.schema, &first.table));
        let mut previous = first;
        let joined = |step: &Step, row: &str, i: usize, next: &[String]| {
            let equal: Vec<String> = step
                .columns
                .iter()
                .zip(next)
                .map(|(c, next)| {
                    let (column, next) = (quote_identifier(&c.column), quote_identifier(next));
                    let collate = collate(&c.collation);
                    format!("{row}.{column} {} s{i}.{next}{collate}", c.operator)
                })
                .collect();
            equal.join(" AND ")
        };
        for (i, step) in rest.iter().enumerate() {
            let row = format!("s{}", i + 1);
            from.push_str(&format!(
                " JOIN {} AS {row} ON {}",
                qualified(&step.schema, &step.table),
                joined(step, &row, i, &previous.next),
            ));
            previous = step;
        }
        format!(
            "EXISTS (SELECT FROM {from} WHERE {} AND {})",
            first.among("s0", &types, n),
            joined(last, "p", rest.len(), &previous.next),
        )
    }

    /// Rows of the profile table that one of the pending keys in the parameters from `$n` on names by
    /// `step`.
    pub fn named(step: &Step, types: &[String], n: usize) -> String {
        format!("coalesce({}, false)", step.among("p", types, n))
    }
}

impl Step {
    /// That a row `row` of the step's table has the values of the row `values`, of columns c0, c1…
    pub fn equals(&self, row: &str, values: &str) -> String {
        let columns = self.columns.iter().enumerate();
        let equal = |(i, c): (usize, &StepColumn)| {
            let column = quote_identifier(&c.column);
            format!("{row}.{column} {} {values}.c{i}", c.operator)
        };
        columns.map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// Rows of values of the profile's columns, in parameters from `$n` on. A parameter has the database's
    /// collation, and equality goes by the column's: one that ignores case takes both for the same row.
    pub fn values_of(&self, profile: &str, n: usize) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|c| format!("p.{}", quote_identifier(&c.column))).collect();
        format!(
            "(SELECT {} FROM {profile} AS p WHERE false UNION ALL SELECT * FROM {})",
            columns.join(", "),
            array_rows(self.columns.len(), n)
        )
    }

    /// That two rows of values, of columns c0, c1…, are the same to the step; one of them of [`Self::values_of`].
    pub fn equal(&self, a: &str, b: &str) -> String {
        let columns = self.columns.iter().enumerate();
        let equal: Vec<String> =
            columns.map(|(i, c)| format!("{a}.c{i} {} {b}.c{i}", c.operator)).collect();
        equal.join(" AND ")
    }

    /// That row `row` has one of the values in the parameters from `$n` on, an array of texts for
    /// each column.
    fn among(&self, row: &str, types: &[String], n: usize) -> String {
        if let ([c], [t]) = (&self.columns[..], types) {
            let column = quote_identifier(&c.column);
            return format!("{row}.{column} {} ANY (${n}::pg_catalog.text[]::{t}[])", c.operator);
        }
        format!(
            "EXISTS (SELECT FROM {} AS k({}) WHERE {})",
            value_rows(types, n),
            value_columns(types.len()),
            self.equals(row, "k")
        )
    }
}

/// Rows of the values in the parameters from `$n` on, an array of texts for each column.
pub fn value_rows(types: &[String], n: usize) -> String {
    let arrays: Vec<String> = types
        .iter()
        .enumerate()
        .map(|(i, t)| format!("pg_catalog.unnest(${}::pg_catalog.text[]::{t}[])", n + i))
        .collect();
    format!("ROWS FROM ({})", arrays.join(", "))
}

/// Rows of `columns` arrays in the parameters from `$n` on.
fn array_rows(columns: usize, n: usize) -> String {
    let arrays: Vec<String> =
        (n..n + columns).map(|i| format!("pg_catalog.unnest(${i})")).collect();
    format!("ROWS FROM ({})", arrays.join(", "))
}

/// c0, c1…
pub fn value_columns(n: usize) -> String {
    let names: Vec<String> = (0..n).map(|i| format!("c{i}")).collect();
    names.join(", ")
}

/// Rows of values, as pending rows hold them: one after the other in one array.
pub fn by_column(columns: usize, rows: &[Vec<String>]) -> Vec<Vec<String>> {
    (0..columns).map(|i| rows.iter().filter_map(|r| r.get(i).cloned()).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(table: &str, columns: &[&str], next: &[&str]) -> Step {
        Step {
            schema: "s".into(),
            table: table.into(),
            columns: columns
                .iter()
                .map(|c| StepColumn {
                    column: (*c).into(),
                    operator: "=".into(),
                    collation: String::new(),
                })
                .collect(),
            next: next.iter().map(|c| (*c).to_owned()).collect(),
        }
    }

    fn link(columns: &[(&str, &str)], member: bool, route: Vec<Step>) -> Link {
        Link {
            columns: columns
                .iter()
                .map(|(c, t)| LinkColumn {
                    column: (*c).into(),
                    r#type: (*t).into(),
                    target_type: (*t).into(),
                })
                .collect(),
            watched: vec![],
            member,
            everyone: vec![],
            route,
            again: false,
        }
    }

    fn sql() -> Sql {
        let d = Definition {
            own_code: false,
            key: "k".into(),
            view_key: "vk".into(),
            expires: true,
            tables: vec![],
        };
        Sql::new(qualified("s", "p"), qualified("s", "v"), &d, vec![])
    }

    #[test]
    fn a_route_of_one_step_compares_the_profile_itself() {
        let link = link(&[("user_id", "bigint")], true, vec![step("p", &["id"], &[])]);
        assert!(link.direct().is_some());
        assert_eq!(sql().dependents(&link, 4), "p.\"id\" = ANY ($4::pg_catalog.text[]::bigint[])");
    }

    #[test]
    fn a_longer_route_joins_its_steps() {
        let route = vec![
            step("plan", &["feature_id"], &["id"]),
            step("sub", &["plan_id"], &["user_id"]),
            step("p", &["id"], &[]),
        ];
        let mut link = link(&[("id", "text")], false, route);
        assert!(link.direct().is_none());
        assert_eq!(
            sql().dependents(&link, 1),
            "EXISTS (SELECT FROM \"s\".\"plan\" AS s0 JOIN \"s\".\"sub\" AS s1 \
             ON s1.\"plan_id\" = s0.\"id\" \
             WHERE s0.\"feature_id\" = ANY ($1::pg_catalog.text[]::text[]) \
             AND p.\"id\" = s1.\"user_id\")"
        );
        link.route[1].columns[0].collation = "s.\"C\"".into();
        assert!(
            sql()
                .dependents(&link, 1)
                .contains("ON s1.\"plan_id\" = s0.\"id\" COLLATE s.\"C\" WHERE")
        );
    }

    #[test]
    fn several_columns_are_compared_together() {
        let columns = [("tenant", "integer"), ("number", "bigint")];
        let link = link(&columns, true, vec![step("p", &["t", "n"], &[])]);
        let among = "EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest($2::pg_catalog.text[]::integer[]), \
             pg_catalog.unnest($3::pg_catalog.text[]::bigint[])) AS k(c0, c1) \
             WHERE p.\"t\" = k.c0 AND p.\"n\" = k.c1)";
        assert_eq!(sql().dependents(&link, 2), among);
        assert!(sql().find(&link.route[0]).contains(
            "SELECT p.ctid, p.\"k\", p.\"t\", p.\"n\" FROM \"s\".\"p\" AS p \
             WHERE p.\"t\" = ANY ($1) AND p.\"n\" = ANY ($2)"
        ));
        assert_eq!(
            sql().not_locked(&link.route[0]),
            "SELECT k.n FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) \
             WITH ORDINALITY AS k(c0, c1, n) WHERE NOT EXISTS \
             (SELECT FROM (SELECT p.\"t\", p.\"n\" FROM \"s\".\"p\" AS p WHERE false UNION ALL \
             SELECT * FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4))) AS r(c0, c1) \
             WHERE r.c0 = k.c0 AND r.c1 = k.c1)"
        );
    }
}
