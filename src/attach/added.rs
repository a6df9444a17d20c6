//! What attach() adds to the app's tables, and detach() takes away: four columns and the triggers.
//!
//! Invariant: all of it is done as the table's owner, and what is there already just as it should be is left alone.
//! A trigger is ours by the function that it calls, not by its name alone.

use super::tables::{Named, named, refuse_events_pending};
use crate::attachment;
use crate::definition::{self, Definition, quote_identifier, quote_literal};
use crate::error::{Error, missing};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog};
use crate::rights::{as_ourselves, as_owner};

/// Adds what is missing of the four columns. Nullable and without default: instant. The document comes
/// last: where the stamp before it changes, WAL need not repeat it.
pub(super) fn add_columns(profile: &Named) -> bool {
    let mut added = vec![];
    for (name, wanted) in definition::COLUMNS.into_iter().rev() {
        match catalog::column_number(profile.oid, name) {
            None => added.push(format!("ADD COLUMN {} {wanted}", quote_identifier(name))),
            Some(number) => {
                let is = spi::one(
                    "SELECT pg_catalog.format_type($1, NULL)",
                    Snapshot::New,
                    &[Arg::oid(catalog::column_type(profile.oid, number))],
                    |r| r.text(1),
                )
                .flatten()
                .unwrap_or_else(|| missing("a type's name"));
                if is != wanted {
                    Error::ColumnTaken {
                        table: profile.display.clone(),
                        column: name.to_owned(),
                        is,
                        wanted,
                    }
                    .raise();
                }
            }
        }
    }
    if added.is_empty() {
        return false;
    }
    refuse_events_pending(profile);
    spi::utility(&format!("ALTER TABLE {} {}", profile.sql, added.join(", ")));
    for (name, about) in [
        ("cached_profile", "the document, kept by profile_cache; read it with get_profile()"),
        ("cached_profile_valid_until", "when the document changes by itself; null for never"),
        ("cached_profile_epoch", "the epoch it was computed in; null: not to be trusted"),
        ("profile_cache_updated_at", "when the transaction that computed it began"),
    ] {
        spi::utility(&format!(
            "COMMENT ON COLUMN {}.{} IS {}",
            profile.sql,
            quote_identifier(name),
            quote_literal(about)
        ));
    }
    true
}

/// Makes the triggers that are missing, disabled or not as they should be; whether there were any. As the
/// tables' owner: event triggers of others that DDL fires run as whoever it runs as.
pub(super) fn make_triggers(definition: &Definition, profile: Oid, owner: Oid) -> bool {
    let tables: Vec<Oid> =
        definition.tables.iter().filter_map(|t| catalog::relation(&t.schema, &t.name)).collect();
    let missing = {
        let _us = as_ourselves();
        attachment::missing_triggers(&tables, profile)
    };
    let _owner = as_owner(owner);
    for (oid, name) in &missing {
        let table = named(*oid);
        refuse_events_pending(&table);
        let sql = table.sql;
        let Some(trigger) = definition::triggers(true).find(|t| t.name == name) else {
            continue;
        };
        spi::utility(&trigger.create(&sql));
        spi::utility(&format!("ALTER TABLE {sql} ENABLE ALWAYS TRIGGER {name}"));
        spi::utility(&format!(
            "COMMENT ON TRIGGER {name} ON {sql} IS 'keeps cached profiles true; made by profile_cache.attach()'"
        ));
    }
    !missing.is_empty()
}

/// The tables that have triggers of ours.
pub(super) fn with_our_triggers() -> Vec<Oid> {
    let _us = as_ourselves();
    spi::all(
        "SELECT DISTINCT g.tgrelid FROM pg_catalog.pg_trigger AS g JOIN pg_catalog.pg_proc AS f ON f.oid = g.tgfoid \
         WHERE f.pronamespace = 'profile_cache'::pg_catalog.regnamespace \
          AND f.proname IN ('distrust', 'before_statement', 'after_statement') ORDER BY 1",
        Snapshot::New,
        &[],
        |r| r.oid(1),
    )
    .into_iter()
    .flatten()
    .collect()
}

pub(super) fn drop_triggers(table: &Named) {
    let Some(owner) = catalog::owner(table.oid) else {
        return;
    };
    let _owner = as_owner(owner);
    for name in definition::triggers(true).map(|t| t.name) {
        if trigger_of_ours(table.oid, name) {
            spi::utility(&format!("DROP TRIGGER {} ON {}", quote_identifier(name), table.sql));
        }
    }
}

fn trigger_of_ours(table: Oid, name: &str) -> bool {
    let _us = as_ourselves();
    spi::one(
        "SELECT FROM pg_catalog.pg_trigger AS g JOIN pg_catalog.pg_proc AS f ON f.oid = g.tgfoid \
         WHERE g.tgrelid = $1 AND g.tgname = $2::pg_catalog.name \
          AND f.pronamespace = 'profile_cache'::pg_catalog.regnamespace",
        Snapshot::New,
        &[Arg::oid(table), Arg::text(name)],
        |_| (),
    )
    .is_some()
}
