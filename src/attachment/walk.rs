//! The way from a profile back to the values that lead to it: a link's route, the other way round.
//!
//! Invariant: whoever walks it finds each value from which the route leads to the profile, in the snapshot in which he
//! walks. Where that could not be had by indexes alone, and by values that are the same in every form, there is no way
//! back.

use crate::definition::{BUILT_IN_EQUALS, Link, StepColumn};
use crate::pg::scan::RowsLookup;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::trigger::Column;
use crate::pg::{Oid, catalog};
use crate::rights::as_ourselves;
use pgrx::pg_sys::BPCHAROID;

/// From the profile's column to the rows that have its value, to those that have theirs, and so on.
#[derive(Debug)]
pub struct Walk {
    /// The profile's column, and its type.
    pub start: (i16, Oid),
    pub hops: Vec<Hop>,
}

/// The rows that have a value, and their column that leads on; the last one's values are those that a changed row has.
#[derive(Debug)]
pub struct Hop {
    pub rows: RowsLookup,
    pub column: (i16, Oid),
}

impl Walk {
    /// The indexes by which one goes, from the profile on.
    pub fn indexes(&self) -> Vec<Oid> {
        self.hops.iter().map(|hop| hop.rows.index()).collect()
    }

    /// The way back by a link from these columns of its table, if there is one. `table`: a used table by its names.
    pub(super) fn of(
        profile_table: Oid,
        link: &Link,
        columns: &[Column],
        table: impl Fn(&str, &str) -> Option<Oid>,
    ) -> Option<Walk> {
        let ([own], Some((profile, steps))) = (columns, link.route.split_last()) else {
            return None;
        };
        let typed = |table: Oid, name: &str| {
            let number = catalog::column_number(table, name)?;
            Some((number, catalog::base_type(catalog::column_type(table, number))))
        };
        // Only what is compared by the built-in equality, one column with one of the same type.
        let plain = |columns: &[StepColumn]| match columns {
            [c] if c.operator == BUILT_IN_EQUALS && c.collation.is_empty() => {
                Some(c.column.clone())
            }
            _ => None,
        };
        let start = typed(profile_table, &plain(&profile.columns)?)?;
        let (mut at, mut last) = (start, (profile_table, start));
        let mut hops = vec![];
        for step in steps.iter().rev() {
            let table = table(&step.schema, &step.table)?;
            let [next] = &step.next[..] else { return None };
            let (found_by, oid) = typed(table, next)?;
            // Equal values have one image, so that an index that tells them apart finds all.
            if oid != at.1
                || !catalog::has_one_text(last.0, at.0)
                || !catalog::has_one_text(table, found_by)
            {
                return None;
            }
            let rows = RowsLookup::new(table, index_on(table, found_by)?, oid)?;
            at = typed(table, &plain(&step.columns)?)?;
            last = (table, at);
            hops.push(Hop { rows, column: at });
        }
        // The changed row's values are written down as texts.
        let own_type = catalog::base_type(own.oid);
        let one_text = catalog::has_one_text(last.0, at.0) && at.1 != BPCHAROID;
        (one_text && at.1 == own_type).then_some(Walk { start, hops })
    }
}

/// An index that finds a table's rows by one column: a btree of the type's own operator class and the column's own
/// collation. None of a table whose rows may be in others.
fn index_on(table: Oid, column: i16) -> Option<Oid> {
    let _us = as_ourselves();
    spi::one(
        "SELECT i.indexrelid FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid \
          JOIN pg_catalog.pg_am AS m ON m.oid = c.relam AND m.amname = 'btree' \
          JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid AND t.relkind = 'r' AND NOT t.relhassubclass \
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attcollation = i.indcollation[0] \
          JOIN pg_catalog.pg_opclass AS o ON o.oid = i.indclass[0] AND o.opcdefault AND o.opcnamespace = 'pg_catalog'::regnamespace \
         WHERE i.indrelid = $1 AND i.indkey[0] = $2 AND i.indisvalid AND i.indpred IS NULL \
         ORDER BY i.indnatts, i.indexrelid LIMIT 1",
        Snapshot::Latest,
        &[Arg::oid(table), Arg::int8(Some(column.into()))],
        |r| r.oid(1),
    )
    .flatten()
}
