//! What attach() warns of: nothing here stops it.
//!
//! Invariant: only reads the catalogs, and says what to do.

use crate::attach::Request;
use crate::attachment::as_ourselves;
use crate::error::{notice, warning};
use crate::pg::spi::{self, Arg, At};
use crate::pg::{Oid, catalog};
use crate::routes::{self, Definition, display, display_identifier};
use crate::tables::Named;

/// Columns that an earlier attach() was told to exclude and this one is not.
pub fn warn_of_shown_again(request: &Request) {
    let before = {
        let _us = as_ourselves();
        spi::one(
            "SELECT a.exclude::pg_catalog.text[] FROM profile_cache.attachment AS a",
            At::Latest,
            &[],
            |r| r.texts(1),
        )
    };
    let shown: Vec<String> = before
        .flatten()
        .unwrap_or_default()
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

/// A BEFORE ROW trigger that sorts behind ours sees the row after us.
pub fn warn_of_later_triggers(profile: &Named) {
    for name in spi::all(
        "SELECT g.tgname::text FROM pg_catalog.pg_trigger AS g WHERE g.tgrelid = $1 AND NOT g.tgisinternal \
         AND g.tgtype & 3 = 3 AND g.tgname > $2::pg_catalog.name ORDER BY 1",
        At::New,
        &[Arg::oid(profile.oid), Arg::text(routes::DISTRUST.name)],
        |r| r.text(1).unwrap_or_default(),
    ) {
        warning(
            &format!(
                "trigger {} on {} fires after ours and may undo it",
                display_identifier(&name),
                profile.display
            ),
            &format!(
                "Give it a name that sorts before {}, unless it leaves the four cache columns alone.",
                routes::DISTRUST.name
            ),
        );
    }
}

/// The document shows members to whoever may read the profile table.
pub fn warn_of_readers(profile: &Named, others: &[Named]) {
    let oids: Vec<Oid> = others.iter().map(|t| t.oid).collect();
    let roles = spi::all(
        "SELECT DISTINCT CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE x.grantee::pg_catalog.regrole::text END \
         FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS x, pg_catalog.unnest($2) AS t(oid) \
         WHERE c.oid = $1 AND x.privilege_type = 'SELECT' AND NOT CASE WHEN x.grantee = 0 \
          THEN EXISTS (SELECT FROM pg_catalog.pg_class AS o, pg_catalog.aclexplode(o.relacl) AS y \
                       WHERE o.oid = t.oid AND y.grantee = 0 AND y.privilege_type = 'SELECT') \
          ELSE pg_catalog.has_table_privilege(x.grantee, t.oid, 'SELECT') END ORDER BY 1",
        At::New,
        &[Arg::oid(profile.oid), Arg::oids(&oids)],
        |r| r.text(1).unwrap_or_default(),
    );
    if !roles.is_empty() {
        notice(&format!(
            "these roles may read {} and so, from now on, what its documents show of tables they may not read: {}",
            profile.display,
            roles.join(", ")
        ));
    }
}

/// Each foreign key that a document is computed by wants an index.
pub fn warn_of_missing_indexes(d: &Definition) {
    let Some(profile) = d.tables.first() else {
        return;
    };
    let steps = d.tables.iter().skip(1).flat_map(|t| {
        t.links
            .iter()
            .filter(|l| l.direct().is_some())
            .map(move |l| (t, &l.column))
    });
    for (t, column) in steps {
        let (Some(oid), table) = (
            catalog::relation(&t.schema, &t.name),
            display(&t.schema, &t.name),
        ) else {
            continue;
        };
        let indexed = spi::one(
            "SELECT FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_attribute AS a \
              ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
             WHERE i.indrelid = $1 AND a.attname = $2::pg_catalog.name AND i.indisvalid AND i.indpred IS NULL LIMIT 1",
            At::New,
            &[Arg::oid(oid), Arg::text(column)],
            |_| (),
        );
        if indexed.is_none() {
            let column = display_identifier(column);
            warning(
                &format!(
                    "table {table} has no index on {column}: computing a document of {} scans it whole",
                    profile.name
                ),
                &format!("CREATE INDEX CONCURRENTLY ON {table} ({column});"),
            );
        }
    }
}
