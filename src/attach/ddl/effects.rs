//! What a DDL command is about, and the most that it may do to that.
//!
//! Invariant: a command that is not known here may change a document. It counts for less only where something
//! here says why.
//!
//! Rules: D7, D8.

use super::reached::{Object, PG_CONSTRAINT, here, reached};
use super::rediscover::is_well;
use crate::attachment;
use crate::definition;
use crate::pg::ddl::{Kind, Part, Told};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog};
use crate::proof::reach::USES_OWN;
use pgrx::pg_sys;
use std::borrow::Cow;

/// Commands that change neither a document, nor who is told of changes, nor what is proven.
pub(super) const HARMLESS: [&str; 10] = [
    "ALTER DEFAULT PRIVILEGES",
    "ALTER POLICY",
    "ALTER STATISTICS",
    "COMMENT",
    "CREATE POLICY",
    "GRANT",
    "REFRESH MATERIALIZED VIEW",
    "REINDEX",
    "REVOKE",
    "SECURITY LABEL",
];

/// Commands that attach need not wait for: they lock the table they are about, and so wait for each
/// other by themselves; or make one that nothing depends on yet; or change no document.
pub(super) const APART: [&str; 16] = [
    "ALTER TABLE",
    "COMMENT",
    "CREATE INDEX",
    "CREATE POLICY",
    "CREATE SEQUENCE",
    "CREATE TABLE",
    "CREATE TABLE AS",
    "CREATE TRIGGER",
    "DROP INDEX",
    "DROP TABLE",
    "DROP TRIGGER",
    "GRANT",
    "REFRESH MATERIALIZED VIEW",
    "REINDEX",
    "REVOKE",
    "SELECT INTO",
];

/// Commands that give a view another query. Unlike DDL on a table, they wait for nobody who writes one.
pub(super) const REPLACING: [&str; 2] = ["CREATE VIEW", "CREATE RULE"];

/// What DDL on something that the document depends on may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Effect {
    /// Nothing that matters.
    Nothing,
    /// A column of a table comes or goes. Nobody shows it but with the whole row, and such a view and this
    /// wait for each other.
    Columns,
    /// What is proven may have changed, and nothing else.
    Proof,
    /// What the view shows may have changed.
    Document,
}

/// What the event is about, and what it may do to that.
pub(super) fn subjects_of(told: &[Told], drops: bool) -> Vec<(Effect, Object)> {
    if drops { of_dropped(told) } else { of_commands(told) }
}

/// What has been dropped, and what that may do.
fn of_dropped(told: &[Told]) -> Vec<(Effect, Object)> {
    let effect = |t: &Told| match (t.class, t.tag.as_str()) {
        (pg_sys::RelationRelationId, _) if t.column => of_column(t.object),
        (_, "index" | "table constraint") => Effect::Proof,
        _ => Effect::Document,
    };
    let mut found: Vec<_> = told.iter().map(|t| (effect(t), (t.class, t.object))).collect();
    if told.iter().any(|t| was_copied(&t.trigger)) {
        found.push((Effect::Document, here()));
    }
    found
}

/// Whether this was the trigger by which the profile's rows have been copied: the copies are of before what we have written
/// since.
fn was_copied(trigger: &[String]) -> bool {
    let [schema, table, name] = trigger else { return false };
    name == definition::COPYING
        && attachment::recorded()
            .and_then(|r| catalog::relation_name(r.profile))
            .is_some_and(|profile| profile == (schema.clone(), table.clone()))
}

/// A column of a table whose rows are a type that the view uses is shown wherever one of that type is.
fn of_column(table: Oid) -> Effect {
    let rows = (pg_sys::TypeRelationId, catalog::row_type(table));
    if !catalog::is_table(table) || reached(&[rows]).contains_key(&rows) {
        return Effect::Document;
    }
    // One that nobody shows, and that is none of ours: then all is as it was.
    let shown = attachment::recorded()
        .filter(|r| !r.problem)
        .and_then(|r| r.definition)
        .and_then(|d| {
            let (schema, name) = catalog::relation_name(table)?;
            let mut tables = d.tables.into_iter();
            tables.find(|t| t.schema == schema && t.name == name)
        })
        .is_none_or(|t| t.whole);
    // Whose a type is that is not the server's, is asked.
    let typed = || {
        let sql = "SELECT FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384 LIMIT 1";
        spi::one(sql, Snapshot::Latest, &[Arg::oid(table)], |_| ()).is_some()
    };
    if shown || typed() || !is_well() { Effect::Columns } else { Effect::Nothing }
}

/// What the commands were about, and what they may do to it: the object itself, and what it is put on or into.
fn of_commands(told: &[Told]) -> Vec<(Effect, Object)> {
    let mut found = vec![];
    for t in told {
        let object = (t.class, t.object);
        let effects = t.parts.iter().map(|p| of_part(t, p));
        let mut effect = effects.max().unwrap_or(Effect::Document);
        // One column in the place of another, of whose name and perhaps type it is, is told from it by nothing else.
        let columns = [Kind::OldColumn, Kind::NewColumn];
        if columns.iter().all(|k| t.parts.iter().any(|p| p.kind == *k)) {
            effect = Effect::Document;
        }
        let others = t.parts.iter().filter(|p| p.other != Oid::INVALID);
        found.extend(others.map(|p| (effect, (pg_sys::RelationRelationId, p.other))));
        found.push((effect, object));
        if TEXT_SEARCH.contains(&t.class) && t.object.to_u32() < FIRST_UNPINNED {
            found.push((Effect::Document, here()));
        }
        for (sql, most) in subjects(t) {
            let more = spi::all(&*sql, Snapshot::Latest, &[Arg::oid(t.object)], |r| {
                let effect = if r.bool(3) == Some(true) { most } else { Effect::Nothing };
                r.oid(1).zip(r.oid(2)).map(|o| (effect, o))
            });
            found.extend(more.into_iter().flatten());
        }
    }
    found
}

/// What of text search can be altered although it is the server's, so that pg_depend does not say who uses it:
/// pg_ts_dict, pg_ts_config.
const TEXT_SEARCH: [Oid; 2] = [Oid::from_u32(3600), Oid::from_u32(3602)];
const FIRST_UNPINNED: u32 = 12000;

fn of_part(t: &Told, part: &Part) -> Effect {
    // Names of constraints and indexes are nothing to us.
    let renamed = t.class == PG_CONSTRAINT && t.tag == "ALTER TABLE";
    let index =
        || t.class == pg_sys::RelationRelationId && catalog::table_of_index(t.object).is_some();
    if renamed || index() {
        return Effect::Nothing;
    }
    let table = || t.class == pg_sys::RelationRelationId && catalog::is_table(t.object);
    match part.kind {
        Kind::Planned => Effect::Nothing,
        Kind::Storage if table() => Effect::Nothing,
        Kind::NewColumn | Kind::OldColumn if table() => of_column(t.object),
        // What that proves or runs, is asked below; and of what has gone, the other event tells.
        Kind::NewConstraint | Kind::OldConstraint if table() => Effect::Nothing,
        Kind::Constraint if table() => Effect::Proof,
        Kind::Trigger
            if table() && definition::triggers(true).all(|ours| ours.name != part.name) =>
        {
            Effect::Proof
        }
        _ => Effect::Document,
    }
}

/// For objects that can come to concern the document by themselves, since nothing that was there names them:
/// what object $1 is put on or into, as rows (classid, objid, whether that matters: else it is harmless), and
/// what it may do to that.
fn subjects(t: &Told) -> Vec<(Cow<'static, str>, Effect)> {
    const PG_TRIGGER: u32 = 2620;
    const PG_REWRITE: u32 = 2618;
    const PG_CAST: u32 = 2605;
    const PG_OPERATOR: u32 = 2617;
    const PG_OPCLASS: u32 = 2616;
    const PG_OPFAMILY: u32 = 2753;
    const PG_EXTENSION: u32 = 3079;
    const PG_STATISTIC_EXT: u32 = 3381;
    let document = |sql: &'static str| Some((Cow::from(sql), Effect::Document));
    let has = |kind| t.parts.iter().any(|p| p.kind == kind);
    let made = t.tag.starts_with("CREATE") && t.tag.ends_with("TABLE");
    let mut found = vec![];
    found.extend(match t.class.to_u32() {
        // One of our names, or our functions.
        PG_TRIGGER => document(
            "SELECT 'pg_class'::regclass::oid, g.tgrelid, f.pronamespace = 'profile_cache'::regnamespace OR g.tgname ~ '^(zz_)?profile_cache_' \
             FROM pg_trigger AS g JOIN pg_proc AS f ON f.oid = g.tgfoid WHERE g.oid = $1",
        ),
        PG_REWRITE => document(
            "SELECT 'pg_class'::regclass::oid, w.ev_class, true FROM pg_rewrite AS w WHERE w.oid = $1",
        ),
        PG_CAST => document(
            "SELECT 'pg_type'::regclass::oid, k.castsource, true FROM pg_cast AS k WHERE k.oid = $1 \
              AND (k.casttarget = 'json'::regtype AND k.castmethod = 'f' OR k.castmethod = 'b')",
        ),
        PG_OPERATOR => document(
            "SELECT 'pg_operator'::regclass::oid, k.o, true FROM pg_operator AS p, \
              LATERAL (VALUES (p.oprcom), (p.oprnegate)) AS k(o) WHERE p.oid = $1",
        ),
        PG_OPCLASS => document(
            "SELECT k.classid, k.objid, true FROM pg_opclass AS c CROSS JOIN LATERAL ( \
              SELECT 'pg_type'::regclass::oid, c.opcintype WHERE c.opcdefault \
              UNION ALL SELECT 'pg_opfamily'::regclass, c.opcfamily \
              UNION ALL SELECT 'pg_operator'::regclass, m.amopopr FROM pg_amop AS m WHERE m.amopfamily = c.opcfamily \
             ) AS k(classid, objid) WHERE c.oid = $1",
        ),
        PG_OPFAMILY => document(
            "SELECT 'pg_operator'::regclass::oid, m.amopopr, true FROM pg_amop AS m WHERE m.amopfamily = $1",
        ),
        PG_EXTENSION => document(
            "SELECT d.classid, d.objid, true FROM pg_depend AS d WHERE d.refclassid = 'pg_extension'::regclass \
              AND d.refobjid = $1 AND d.deptype = 'e'",
        ),
        PG_STATISTIC_EXT => Some((
            "SELECT 'pg_class'::regclass::oid, s.stxrelid, s.stxexprs IS NOT NULL FROM pg_statistic_ext AS s WHERE s.oid = $1"
                .into(),
            if t.tag == "CREATE STATISTICS" {
                Effect::Proof
            } else {
                Effect::Document
            },
        )),
        _ if t.tag == "CREATE INDEX" => Some((proof_of_index().into(), Effect::Proof)),
        _ if made => document(
            "SELECT 'pg_class'::regclass::oid, h.inhparent, true FROM pg_inherits AS h WHERE h.inhrelid = $1",
        ),
        // It may have got a partition.
        _ if t.tag.ends_with("TABLE") && has(Kind::Other) => document(
            "SELECT 'pg_class'::regclass::oid, h.inhrelid, true FROM pg_inherits AS h WHERE h.inhparent = $1",
        ),
        _ => None,
    });
    if has(Kind::NewConstraint) {
        found.push((proof_of_constraints().into(), Effect::Proof));
    }
    found
}

/// In SQL, that something is missing that a new index or constraint may prove.
const UNPROVEN: &str =
    "EXISTS (SELECT FROM profile_cache.attachment AS a WHERE a.problem IS NOT NULL)";

/// Whether a new index may prove what is missing, or planning may run what it calls.
fn proof_of_index() -> String {
    format!(
        "SELECT 'pg_class'::regclass::oid, i.indrelid, i.indisunique AND {UNPROVEN} OR {USES_OWN} \
         FROM pg_index AS i CROSS JOIN LATERAL (SELECT 'pg_class'::regclass::oid, i.indexrelid) AS o(classid, objid) \
         WHERE i.indexrelid = $1"
    )
}

/// The same of a table's constraints, any of which may be new.
fn proof_of_constraints() -> String {
    format!(
        "SELECT 'pg_class'::regclass::oid, $1, {UNPROVEN} OR EXISTS (SELECT FROM ( \
          SELECT 'pg_constraint'::regclass::oid, k.oid FROM pg_constraint AS k WHERE k.conrelid = $1 \
          UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index AS i WHERE i.indrelid = $1) AS o(classid, objid) \
         WHERE {USES_OWN})"
    )
}
