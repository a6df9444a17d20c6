//! Whether what is attached is still as attach() left it: our triggers, the tables' kind, the unique indexes.
//!
//! Invariant: whatever would let a change of a used table go unnoticed is found here each time the attachment is
//! loaded, and then no stored document is trusted.
//!
//! Rules: R8.

use super::attached::{CacheColumns, Degraded, UsedTable};
use crate::definition::{self, Definition};
use crate::error::missing;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog};
use crate::proof::discover;
use crate::proof::{Partial, Unique};

/// Triggers of ours that do not fire.
pub(super) fn triggers_off(profile: Oid, tables: &[UsedTable]) -> Option<Degraded> {
    let oids: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
    let name = |oid: Oid| match catalog::relation_name(oid) {
        Some((schema, name)) => definition::display(&schema, &name),
        // It has been dropped since.
        None => format!("a table with OID {oid}"),
    };
    let missing: Vec<String> = missing_triggers(&oids, profile)
        .into_iter()
        .map(|(oid, trigger)| format!("{trigger} on {}", name(oid)))
        .collect();
    (!missing.is_empty()).then_some(Degraded::Triggers(missing))
}

/// What else would let a change go unnoticed: logical replication's apply (it fires no statement
/// triggers), a copy of the profile's rows that takes their place without what we have written, a key that is no longer unique.
pub(super) fn unhealthy(profile: Oid, key: i16, tables: &[UsedTable]) -> Option<Degraded> {
    let oids: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
    let unfit = spi::one(
        "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class AS c WHERE c.oid = ANY ($1) \
         AND (c.relkind <> 'r' OR c.relispartition OR c.relpersistence <> 'p' OR c.relforcerowsecurity \
          OR EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent))) LIMIT 1",
        Snapshot::Latest,
        &[Arg::oids(&oids)],
        |r| r.text(1).unwrap_or_else(|| missing("a table's name")),
    );
    if let Some(table) = unfit {
        return Some(Degraded::Unfit {
            why: format!(
                "table {table} has become partitioned, inherited or unlogged, or has FORCE ROW LEVEL SECURITY"
            ),
            advice: "make it an ordinary table again, and CALL profile_cache.refresh()".into(),
        });
    }
    let copied = spi::one(
        "SELECT t.tgrelid::pg_catalog.regclass::text FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = $1 AND t.tgname = $2",
        Snapshot::Latest,
        &[Arg::oid(profile), Arg::text(definition::COPYING)],
        |r| r.text(1).unwrap_or_else(|| missing("a table's name")),
    );
    if let Some(table) = copied {
        return Some(Degraded::Unfit {
            why: format!(
                "pg_repack copies table {table}, and not what the extension writes meanwhile"
            ),
            advice: format!(
                "wait for its end, or, where it has left its trigger behind, DROP TRIGGER {} ON {table}; then CALL profile_cache.refresh()",
                definition::COPYING
            ),
        });
    }
    let replicated = spi::one(
        "SELECT s.srrelid::pg_catalog.regclass::text FROM pg_catalog.pg_subscription_rel AS s \
         WHERE s.srrelid = ANY ($1) LIMIT 1",
        Snapshot::Latest,
        &[Arg::oids(&oids)],
        |r| r.text(1).unwrap_or_else(|| missing("a table's name")),
    );
    if let Some(table) = replicated {
        return Some(Degraded::Unfit {
            why: format!(
                "table {table} is a target of logical replication, whose apply fires no statement triggers"
            ),
            advice: "nothing is wrong where it is to stay one; else end that (DROP SUBSCRIPTION, or ALTER \
                SUBSCRIPTION … REFRESH PUBLICATION once it is no longer published), and CALL profile_cache.refresh()"
                .into(),
        });
    }
    let unique = spi::one(
        UNIQUE_KEY,
        Snapshot::Latest,
        &[Arg::oid(profile), Arg::int8(Some(key.into()))],
        |_| (),
    );
    unique
        .is_none()
        .then(|| Degraded::Problem("the profile table's key has no unique index any more".into()))
}

/// Columns that were unique when that was proven, and whose index is valid no more. DROP INDEX
/// CONCURRENTLY lets duplicates in long before its event, and for good where it is cancelled.
pub(super) fn not_unique(definition: &Definition, tables: &[UsedTable]) -> Option<Degraded> {
    let oids: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
    let valid = discover::unique_indexes(&oids);
    let partial = match definition.tables.iter().any(|t| !t.partial.is_empty()) {
        true => discover::partial_indexes(&oids),
        false => vec![],
    };
    for (table, used) in definition.tables.iter().zip(tables) {
        let are = |u: &Unique, columns: &[String]| {
            let number = |c: &String| catalog::column_number(used.oid, c);
            let numbers: Option<Vec<i16>> = columns.iter().map(number).collect();
            u.table == used.oid.to_u32()
                && numbers.is_some_and(|n| u.columns.iter().map(|c| &c.0).eq(&n))
        };
        let whole = table.unique.iter().find(|columns| !valid.iter().any(|u| are(u, columns)));
        let in_part = table.partial.iter().find(|p| {
            let same = |i: &Partial| are(&i.unique, &p.columns) && i.predicate == p.predicate;
            !partial.iter().any(same)
        });
        let lost = whole.map(|columns| (columns, String::new()));
        let lost = lost.or(in_part.map(|p| (&p.columns, format!(" WHERE {}", p.predicate))));
        if let Some((columns, only)) = lost {
            return Some(Degraded::Problem(format!(
                "the unique index on {} ({}){only} is no longer valid",
                definition::display(&table.schema, &table.name),
                columns.join(", ")
            )));
        }
    }
    None
}

/// Whether there is an index that finds documents by their `valid_until`, in column `until`.
pub fn expiry_indexed(profile: Oid, until: i16) -> bool {
    spi::one(
        "SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam \
         WHERE i.indrelid = $1 AND i.indkey[0] = $2 AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree' LIMIT 1",
        Snapshot::Latest,
        &[Arg::oid(profile), Arg::int8(Some(until.into()))],
        |_| (),
    )
    .is_some()
}

/// Whether what we write may be refused: by an index with an expression, a predicate or an exclusion
/// constraint, on our document, or unique on another of our columns; by the row's size, where documents stay in it; by a
/// publication.
pub(super) fn write_may_fail(profile: Oid, columns: CacheColumns) -> bool {
    let numbers: Vec<String> = columns.all().iter().map(i16::to_string).collect();
    spi::one(
        "SELECT FROM pg_index AS i WHERE i.indrelid = $1 AND (i.indexprs IS NOT NULL \
          OR i.indpred IS NOT NULL OR i.indisexclusion OR (i.indisunique AND NOT i.indisvalid) OR EXISTS \
          (SELECT FROM unnest(i.indkey) AS k WHERE k::text = ANY ($2) AND (i.indisunique OR k::text = $3))) \
         UNION ALL SELECT FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum::text = ANY ($2) \
          AND a.attlen = -1 AND a.attstorage = 'p' \
         UNION ALL SELECT FROM pg_publication AS p WHERE p.puballtables \
          OR EXISTS (SELECT FROM pg_publication_rel AS r WHERE r.prpubid = p.oid AND r.prrelid = $1) \
          OR EXISTS (SELECT FROM pg_publication_namespace AS n JOIN pg_class AS c ON c.oid = $1 \
           WHERE n.pnpubid = p.oid AND n.pnnspid = c.relnamespace) LIMIT 1",
        Snapshot::Latest,
        &[
            Arg::oid(profile),
            Arg::texts(&numbers),
            Arg::text(&columns.document.to_string()),
        ],
        |_| (),
    )
    .is_some()
}

/// The triggers of ours that these tables should have and do not have just so, ENABLE ALWAYS.
pub fn missing_triggers(tables: &[Oid], profile: Oid) -> Vec<(Oid, String)> {
    let wanted: Vec<(Oid, &definition::Trigger)> = tables
        .iter()
        .flat_map(|t| definition::triggers(*t == profile).map(move |trigger| (*t, trigger)))
        .collect();
    let texts = |f: fn(&definition::Trigger) -> String| {
        Arg::texts(&wanted.iter().map(|(_, t)| f(t)).collect::<Vec<_>>())
    };
    spi::all(
        "SELECT w.oid, w.name FROM unnest($1, $2, $3, $4, $5, $6) \
          AS w(oid, name, function, type, old_table, new_table) WHERE NOT EXISTS \
         (SELECT FROM pg_trigger AS g JOIN pg_proc AS f ON f.oid = g.tgfoid \
          WHERE g.tgrelid = w.oid AND g.tgname = w.name::name AND g.tgenabled = 'A' AND g.tgqual IS NULL \
           AND f.pronamespace = 'profile_cache'::regnamespace AND f.proname = w.function::name \
           AND g.tgtype = w.type::int2 AND g.tgnargs = 0 AND g.tgattr = '' \
           AND coalesce(g.tgoldtable::text, '') = w.old_table \
           AND coalesce(g.tgnewtable::text, '') = w.new_table)",
        Snapshot::Latest,
        &[
            Arg::oids(&wanted.iter().map(|(t, _)| *t).collect::<Vec<_>>()),
            texts(|t| t.name.into()),
            texts(|t| t.function.into()),
            texts(|t| t.tgtype.to_string()),
            texts(|t| t.old_table.into()),
            texts(|t| t.new_table.into()),
        ],
        |r| r.oid(1).zip(r.text(2)),
    )
    .into_iter()
    .flatten()
    .collect()
}

/// $1: the profile table, $2: the key's column number. A row where a unique index proves the key:
/// immediate, valid, total, on that column alone.
pub const UNIQUE_KEY: &str = "SELECT i.indexrelid FROM pg_catalog.pg_index AS i \
    WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate \
    AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = $2";
