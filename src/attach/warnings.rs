//! What attach() warns of: nothing here stops it.
//!
//! Invariant: only reads the catalogs and plans, and says what to do.

use super::tables::{AttachRequest, Named, named};
use crate::attachment;
use crate::definition::{self, Definition, display, display_identifier, quote_identifier};
use crate::error::{missing, notice, warning};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog};
use crate::proof::reach;
use crate::rights::{as_ourselves, as_owner};
use std::collections::BTreeSet;

/// Columns that an earlier attach() was told to exclude and this one is not. `noted`: those that the generated
/// view's comment names. A dump without data has the view, and nothing of the attachment.
pub fn warn_of_shown_again(request: &AttachRequest, noted: Vec<String>) {
    let recorded = {
        let _us = as_ourselves();
        spi::one(
            "SELECT a.exclude::pg_catalog.text[] FROM profile_cache.attachment AS a",
            Snapshot::Latest,
            &[],
            |r| r.texts(1),
        )
    };
    // Nothing is recorded before the first attach().
    let mut before = recorded.flatten().unwrap_or_default();
    before.extend(noted.into_iter().filter(|c| !before.contains(c)).collect::<Vec<_>>());
    let shown: Vec<String> = before
        .into_iter()
        .filter(|c| !request.exclude.contains(c))
        .map(|c| display_identifier(&c))
        .collect();
    if !shown.is_empty() {
        warning(
            &format!(
                "no longer excluded, and so in every document from now on: {}",
                shown.join(", ")
            ),
            "Give attach() the same exclude => '{…}' each time.",
        );
    }
}

/// What a large table wants: room on its pages for other versions of its rows; and where its documents expire, an index by which
/// refresh finds those that have.
pub fn name_what_large_tables_want(profile: &Named, d: &Definition) {
    const LARGE: f32 = 100_000.0;
    let _us = as_ourselves();
    let option = spi::one(
        "SELECT (SELECT o.option_value FROM pg_catalog.pg_options_to_table(c.reloptions) AS o \
         WHERE o.option_name = 'fillfactor') FROM pg_catalog.pg_class AS c WHERE c.oid = $1 AND c.reltuples >= $2",
        Snapshot::New,
        &[Arg::oid(profile.oid), Arg::float4(LARGE)],
        |r| r.text(1),
    );
    let Some(option) = option else {
        return;
    };
    // Whoever has left some room has thought of it.
    const HARDLY_ANY_ROOM: i64 = 90;
    let recommended = definition::FILLFACTOR;
    if definition::fillfactor(option.as_deref()) > HARDLY_ANY_ROOM {
        notice(&format!(
            "each change of a document is a new version of its row, which is cheap where the row's page has room for it: ALTER TABLE {} SET (fillfactor = {recommended}), best before the first refresh",
            profile.sql
        ));
    }
    let until = catalog::column_number(profile.oid, "cached_profile_valid_until");
    if d.expires && !until.is_some_and(|until| attachment::expiry_indexed(profile.oid, until)) {
        notice(&format!(
            "documents expire, and refresh has to look for those that have: CREATE INDEX CONCURRENTLY ON {} (cached_profile_valid_until)",
            profile.sql
        ));
    }
}

/// A BEFORE ROW trigger that sorts behind ours sees the row after us.
pub fn warn_of_later_triggers(profile: &Named) {
    let _us = as_ourselves();
    for name in spi::all(
        "SELECT g.tgname::text FROM pg_catalog.pg_trigger AS g WHERE g.tgrelid = $1 AND NOT g.tgisinternal \
         AND g.tgtype & 3 = 3 AND g.tgname > $2::pg_catalog.name ORDER BY 1",
        Snapshot::New,
        &[Arg::oid(profile.oid), Arg::text(definition::DISTRUST.name)],
        |r| r.text(1).unwrap_or_else(|| missing("a trigger's name")),
    ) {
        warning(
            &format!(
                "trigger {} on {} fires after ours and may undo it",
                display_identifier(&name),
                profile.display
            ),
            &format!(
                "Give it a name that sorts before {}, unless it leaves the four cache columns alone.",
                definition::DISTRUST.name
            ),
        );
    }
}

/// Indexes of the profile table that run what no document view may reach: a row that needs a new entry in
/// them is left unwritten, since whoever writes it would run that.
pub fn warn_of_foreign_indexes(profile: &Named) {
    let _us = as_ourselves();
    for index in reach::foreign_indexes(profile.oid) {
        warning(
            &format!(
                "index {} runs code that the cache does not: a document whose row cannot be updated in place stays uncached",
                named(index).display
            ),
            "Use functions in C or with a parsed SQL body (RETURN …) in it, of the table's owner or a superuser; else VACUUM makes room in place, and refresh() then stores the document.",
        );
    }
}

/// The document shows members to whoever may read the profile table.
pub fn warn_of_readers(profile: &Named, others: &[Named]) {
    let oids: Vec<Oid> = others.iter().map(|t| t.oid).collect();
    let _us = as_ourselves();
    let roles = spi::all(
        "SELECT DISTINCT CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE x.grantee::pg_catalog.regrole::text END \
         FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS x, pg_catalog.unnest($2) AS t(oid) \
         WHERE c.oid = $1 AND x.privilege_type = 'SELECT' AND NOT CASE WHEN x.grantee = 0 \
          THEN EXISTS (SELECT FROM pg_catalog.pg_class AS o, pg_catalog.aclexplode(o.relacl) AS y \
                       WHERE o.oid = t.oid AND y.grantee = 0 AND y.privilege_type = 'SELECT') \
          ELSE pg_catalog.has_table_privilege(x.grantee, t.oid, 'SELECT') END ORDER BY 1",
        Snapshot::New,
        &[Arg::oid(profile.oid), Arg::oids(&oids)],
        |r| r.text(1).unwrap_or_else(|| missing("a role's name")),
    );
    if !roles.is_empty() {
        notice(&format!(
            "these roles may read {} and so, from now on, what its documents show of tables they may not read: {}",
            profile.display,
            roles.join(", ")
        ));
    }
}

/// Aggregates and LIMITs whose rows the view leaves in any order: the document may then differ from
/// one reading of the view to the next.
pub fn warn_of_open_order(unordered: &std::collections::BTreeSet<String>) {
    for what in unordered {
        warning(
            &format!("the document view uses {what} without ORDER BY"),
            "Give it an ORDER BY that ends with a unique column, or verify() may find the same rows in another order.",
        );
    }
}

/// LIMIT, DISTINCT ON, row_number() and aggregates by an order in which rows may tie.
pub fn warn_of_ties(tied: &BTreeSet<&'static str>) {
    for what in tied {
        warning(
            &format!("rows may tie in the ORDER BY of the document view's {what}"),
            "End it with a unique column, as the table's primary key, or one reading may find another row than the next.",
        );
    }
}

/// When documents are computed, by what changes.
pub fn say_when(d: &Definition) {
    let tables = |at_once: bool| {
        let some = |t: &&definition::Table| t.links.iter().any(|l| l.member == at_once);
        let names = d.tables.iter().filter(some).map(|t| display(&t.schema, &t.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let later = tables(false);
    let later = if later.is_empty() { "none".into() } else { later };
    notice(&format!(
        "tables whose changes are computed at once: {}; later, by refresh: {later}. See SELECT * FROM profile_cache.routes.",
        tables(true)
    ));
}

/// Tables of which any row matters to every profile, so that each change there is everybody's.
pub fn warn_of_shown_to_everyone(d: &Definition) {
    const LARGE: f32 = 1000.0;
    for t in d.tables.iter().filter(|t| t.links.iter().any(definition::Link::is_whole)) {
        let shown = display(&t.schema, &t.name);
        let rows =
            catalog::relation(&t.schema, &t.name).and_then(|oid| about_how_many_rows(oid, LARGE));
        let of_so_many = rows.map_or_else(String::new, |n| format!(" It has about {n} rows."));
        warning(
            &format!(
                "every profile shows table {shown}: each change of it makes all documents pending, and they are read from the view until refresh has computed them"
            ),
            &format!(
                "That suits a small table that seldom changes.{of_so_many} If a profile shows some of its rows only, join those by a foreign key."
            ),
        );
    }
}

/// The number of a table's rows as the planner has it, if that is `large`.
fn about_how_many_rows(table: Oid, large: f32) -> Option<i64> {
    let _us = as_ourselves();
    spi::one(
        "SELECT c.reltuples::pg_catalog.int8 FROM pg_catalog.pg_class AS c WHERE c.oid = $1 AND c.reltuples >= $2",
        Snapshot::New,
        &[Arg::oid(table), Arg::float4(large)],
        |r| r.int8(1),
    )
    .flatten()
}

/// Reads the plan for one document. A table that would be read whole wants an index, which is named.
pub fn warn_of_whole_reads(owner: Oid, document: Oid, d: &Definition) {
    let profile = d.tables.first().map_or_else(String::new, |t| t.name.clone());
    for (schema, name) in read_whole(owner, document, &d.view_key) {
        let (shown, oid) = (display(&schema, &name), catalog::relation(&schema, &name));
        let tables = d.tables.iter().filter(|t| t.schema == schema && t.name == name);
        let links: Vec<&definition::Link> = tables.flat_map(|t| &t.links).collect();
        let missing: Vec<Vec<String>> = links
            .iter()
            .filter(|l| !l.is_whole())
            .map(|l| l.column_names())
            .filter(|columns| oid.is_some_and(|oid| !indexed(oid, columns)))
            .collect();
        // What is shown whole is read whole; and PostgreSQL may well prefer to read a small table so.
        let meant = links.iter().any(|l| l.is_whole()) || oid.is_some_and(is_small);
        if missing.is_empty() && !meant {
            warning(
                &format!("computing a document of {profile} reads table {shown} whole"),
                &format!(
                    "See EXPLAIN SELECT * FROM {} WHERE {} = '…'.",
                    named(document).display,
                    display_identifier(&d.view_key)
                ),
            );
        }
        for columns in missing {
            let columns: Vec<String> = columns.iter().map(|c| display_identifier(c)).collect();
            let columns = columns.join(", ");
            warning(
                &format!(
                    "table {shown} has no index on {columns}: computing a document of {profile} scans it whole"
                ),
                &format!("CREATE INDEX CONCURRENTLY ON {shown} ({columns});"),
            );
        }
    }
}

/// Whether a table has been vacuumed or analyzed and is known to have a few blocks only, or none.
fn is_small(table: Oid) -> bool {
    let _us = as_ourselves();
    spi::one(
        "SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = $1 AND c.reltuples >= 0 AND c.relpages <= 10",
        Snapshot::New,
        &[Arg::oid(table)],
        |_| (),
    )
    .is_some()
}

/// Whether an index begins with one of these columns.
fn indexed(table: Oid, columns: &[String]) -> bool {
    let _us = as_ourselves();
    spi::one(
        "SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_attribute AS a \
          ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
         WHERE i.indrelid = $1 AND a.attname::text = ANY ($2) AND i.indisvalid AND i.indpred IS NULL LIMIT 1",
        Snapshot::New,
        &[Arg::oid(table), Arg::texts(columns)],
        |_| (),
    )
    .is_some()
}

/// Whether a condition on relation `own`, as EXPLAIN prints it, compares with another relation, a
/// parameter or the key.
fn is_bound(condition: &str, own: &str) -> bool {
    let other = |(at, _): (usize, &str)| {
        let before = &condition[..at];
        let name =
            before.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
        let quoted = before.ends_with('"') && !before.ends_with(&format!("\"{own}\""));
        quoted || name.starts_with(|c: char| c.is_alphabetic() || c == '_') && name != own
    };
    condition.contains('$') || condition.contains(NO_KEY) || condition.match_indices('.').any(other)
}

/// Whether an index finds few rows by a constant: it is unique, or begins with a column that another
/// index has unique. Planners choose between the two as they please, as where an ORM adds one for LIKE.
fn is_unique(index: &str) -> bool {
    let _us = as_ourselves();
    spi::one(
        "SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid \
          JOIN pg_catalog.pg_index AS u ON u.indrelid = i.indrelid \
         WHERE c.relname = $1::pg_catalog.name AND u.indisunique AND u.indisvalid AND (u.indexrelid = i.indexrelid \
          OR u.indnkeyatts = 1 AND u.indkey[0] = i.indkey[0] AND u.indkey[0] > 0 AND u.indpred IS NULL) LIMIT 1",
        Snapshot::New,
        &[Arg::text(index)],
        |_| (),
    )
    .is_some()
}

/// A key that no profile has.
const NO_KEY: &str = "00000000-0000-0000-0000-000000000000";

/// The tables that the plan for one document reads whole although it would rather not, whatever
/// their size is now: schema and name.
fn read_whole(owner: Oid, document: Oid, key: &str) -> BTreeSet<(String, String)> {
    let sql = format!(
        "EXPLAIN (FORMAT JSON, VERBOSE) SELECT v.document FROM {} AS v \
         WHERE v.{} = '{NO_KEY}'::pg_catalog.uuid",
        named(document).sql,
        quote_identifier(key),
    );
    let plan = {
        // Planning folds constants, by the view's own functions too.
        let _owner = as_owner(owner)
            .with(c"enable_seqscan", "off")
            .with(c"enable_hashjoin", "off")
            .with(c"enable_mergejoin", "off")
            // Up to PostgreSQL 17 one scan that has to be is so dear that all else looks equal beside it, as
            // keeping its rows for a scan of another table that need not be.
            .with(c"enable_material", "off");
        spi::one(&sql, Snapshot::New, &[], |r| r.text(1)).flatten()
    };
    let plan = plan.and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let mut found = BTreeSet::new();
    let mut left: Vec<&serde_json::Value> = plan.iter().collect();
    while let Some(node) = left.pop() {
        let text = |name: &str| node.get(name).and_then(serde_json::Value::as_str);
        // What reads no table has none.
        let own = text("Alias").unwrap_or_default();
        let conditions = ["Index Cond", "Recheck Cond", "Filter"].map(text);
        // By a value that comes from the profile; a constant finds few rows only in a unique index.
        let bound = || conditions.iter().flatten().any(|c| is_bound(c, own));
        let unique = || text("Index Name").is_some_and(is_unique);
        let few = || conditions[..2].iter().any(Option::is_some) && (bound() || unique());
        let whole = match text("Node Type") {
            Some("Seq Scan") => true,
            Some("Index Scan" | "Index Only Scan" | "Bitmap Heap Scan") => !few(),
            _ => false,
        };
        if whole && let (Some(schema), Some(name)) = (text("Schema"), text("Relation Name")) {
            found.insert((schema.to_owned(), name.to_owned()));
        }
        match node {
            serde_json::Value::Array(items) => left.extend(items),
            serde_json::Value::Object(fields) => left.extend(fields.values()),
            _ => {}
        }
    }
    found
}
