//! The event triggers: DDL on anything the document depends on.
//!
//! Invariant: DDL that may change what the view shows makes everything pending in its own transaction; what
//! the document depends on is then discovered anew, so that renames carry over and anything that can no
//! longer be proven is written down as the attachment's problem. DDL that only may change what is proven
//! makes something pending where it does. Nothing is waited for: where another transaction has a lock that
//! is needed, what is left undone is written down (`pending::unseen`) for refresh or attach, and until then no
//! stamp is trusted. An error of ours fails the app's DDL only where not even that can be written.
//!
//! Whether DDL concerns the document is asked of a table, `reached`, not of the catalogs: all that it may be
//! about. Whoever adds to that table keeps DDL on what is not there yet from passing by: it has the attachment
//! locked, or leaves it to refresh, which does.

use crate::attachment::{self, Attached, Distrust, Recorded, State};
use crate::blockers::{Mode, blockers};
use crate::definition::{self, Definition, Link};
use crate::error::{Error, warning};
use crate::pending;
use crate::pg::ddl::{self, Kind, Part, Told};
use crate::pg::fmgr::{Call, Return};
use crate::pg::spi::{self, Arg, At};
use crate::pg::value::Uuid;
use crate::pg::{Oid, catalog};
use crate::pg::{tuple, xact};
use crate::proof::discover::{self, Key};
use crate::proof::reach;
use crate::rights::{as_ourselves, home};
use pgrx::pg_sys;
use std::collections::{HashMap, HashSet};

/// Commands that change neither a document, nor who is told of changes, nor what is proven.
const HARMLESS: [&str; 10] = [
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
const APART: [&str; 16] = [
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
const REPLACING: [&str; 2] = ["CREATE VIEW", "CREATE RULE"];

/// What DDL on something that the document depends on may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Effect {
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

/// An object, by its catalog and its number.
type Object = (Oid, Oid);

/// `profile_cache.on_ddl()`, for ddl_command_end and sql_drop.
pub fn on_ddl(call: &Call) -> Return {
    let Some((event, tag)) = call.event_trigger() else {
        Error::NotATrigger("profile_cache.on_ddl()").raise()
    };
    let drops = event == "sql_drop";
    if attachment::Attaching::under_way() || !drops && HARMLESS.contains(&tag.as_str()) {
        return Return::Null;
    }
    let Some((home, _)) = home() else {
        return Return::Null;
    };
    if tag.ends_with("SUBSCRIPTION") {
        subscription();
        return Return::Null;
    }
    let mut told = {
        let _us = as_ourselves();
        if drops { ddl::dropped() } else { ddl::commands() }
    };
    told.retain(|t| !t.temporary && (drops || !HARMLESS.contains(&t.tag.as_str())));
    if told.is_empty() {
        return Return::Null;
    }
    // attach waits for DDL that is under way, so that neither can miss the other. Where it is attach that
    // came first, it may not see this.
    if !APART.contains(&tag.as_str()) && !tuple::try_lock_for_writing(home) {
        let about = xact::subtransaction(|| {
            let _us = as_ourselves();
            let subjects = subjects_of(&told, drops).into_iter();
            let some = subjects.filter(|(effect, _)| *effect != Effect::Nothing);
            some.map(|(_, (_, object))| object).collect::<Vec<_>>()
        });
        pending::unseen(&about.unwrap_or_else(|_| vec![here().1]));
        return Return::Null;
    }
    let look = xact::subtransaction(|| look(&told, drops));
    // What we cannot decide, we distrust.
    let effect = look.unwrap_or_else(|_| attachment::recorded().map(|_| Effect::Document));
    let replaced = told.iter().any(|t| REPLACING.contains(&t.tag.as_str()));
    if let Some(effect) = effect {
        concern(effect, replaced, drops);
    }
    Return::Null
}

/// Whether the tables are a target of logical replication may have changed, and its apply fires no
/// statement triggers.
fn subscription() {
    if let State::Ready(a) = attachment::load() {
        pending::applied("DDL on a subscription");
        attachment::relation_changed(a.profile);
    }
}

/// What the event may do to the document; None where nothing is attached.
fn look(told: &[Told], drops: bool) -> Option<Effect> {
    let _us = as_ourselves();
    let about = |subjects: &[(Effect, Object)]| {
        let about: Vec<Object> = subjects.iter().map(|(_, o)| *o).collect();
        reached(&about)
    };
    let mut subjects = subjects_of(told, drops);
    let mut found = about(&subjects);
    if !found.contains_key(&here()) {
        // Nothing is attached; or what was written down is another database's.
        let recorded = attachment::recorded()?;
        if drops || !attachment::try_lock_row() {
            return Some(Effect::Document);
        }
        write_reached(&recorded);
        // What a column may do is asked of it too.
        subjects = subjects_of(told, drops);
        found = about(&subjects);
    }
    let effect = subjects.iter().filter_map(|(effect, o)| {
        let shown = *found.get(o)?;
        Some(if shown { *effect } else { (*effect).min(Effect::Proof) })
    });
    let effect = effect.max();
    Some(effect.unwrap_or(Effect::Nothing))
}

/// The database, which stands in `reached` beside what was written down for it.
fn here() -> Object {
    (pg_sys::DatabaseRelationId, catalog::place().1)
}

/// Which of these are written down, with [`here`], and whether their DDL can change a document.
fn reached(about: &[Object]) -> HashMap<Object, bool> {
    let asked: HashSet<Object> = about.iter().copied().chain([here()]).collect();
    let objects: Vec<Oid> = asked.iter().map(|(_, object)| *object).collect();
    let found = spi::all(
        "SELECT r.classid, r.objid, r.shown FROM profile_cache.reached AS r WHERE r.server = $1 AND r.objid = ANY ($2)",
        At::Latest,
        &[Arg::int8(Some(catalog::place().0)), Arg::oids(&objects)],
        |r| Some(((r.oid(1)?, r.oid(2)?), r.bool(3)?)),
    );
    let found = found.into_iter().flatten();
    found.filter(|(object, _)| asked.contains(object)).collect()
}

/// What the event is about, and what it may do to that.
fn subjects_of(told: &[Told], drops: bool) -> Vec<(Effect, Object)> {
    if drops { of_dropped(told) } else { of_commands(told) }
}

/// What has been dropped, and what that may do.
fn of_dropped(told: &[Told]) -> Vec<(Effect, Object)> {
    let effect = |t: &Told| match (t.class, t.tag.as_str()) {
        (pg_sys::RelationRelationId, _) if t.column => of_column(t.object),
        (_, "index" | "table constraint") => Effect::Proof,
        _ => Effect::Document,
    };
    told.iter().map(|t| (effect(t), (t.class, t.object))).collect()
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
        spi::one(sql, At::Latest, &[Arg::oid(table)], |_| ()).is_some()
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
            let more = spi::all(sql, At::Latest, &[Arg::oid(t.object)], |r| {
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
fn subjects(t: &Told) -> Vec<(&'static str, Effect)> {
    const PG_TRIGGER: u32 = 2620;
    const PG_REWRITE: u32 = 2618;
    const PG_CAST: u32 = 2605;
    const PG_OPERATOR: u32 = 2617;
    const PG_OPCLASS: u32 = 2616;
    const PG_OPFAMILY: u32 = 2753;
    const PG_EXTENSION: u32 = 3079;
    const PG_STATISTIC_EXT: u32 = 3381;
    let document = |sql| Some((sql, Effect::Document));
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
            "SELECT 'pg_class'::regclass::oid, s.stxrelid, s.stxexprs IS NOT NULL FROM pg_statistic_ext AS s WHERE s.oid = $1",
            if t.tag == "CREATE STATISTICS" {
                Effect::Proof
            } else {
                Effect::Document
            },
        )),
        _ if t.tag == "CREATE INDEX" => Some((PROOF_OF_INDEX, Effect::Proof)),
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
        found.push((PROOF_OF_CONSTRAINTS, Effect::Proof));
    }
    found
}

/// Whether a new index may prove what is missing, or planning may run what it calls.
const PROOF_OF_INDEX: &str = "SELECT 'pg_class'::regclass::oid, i.indrelid, \
      i.indisunique AND EXISTS (SELECT FROM profile_cache.attachment AS a WHERE a.problem IS NOT NULL) OR EXISTS (SELECT FROM pg_depend AS d \
      WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid >= 16384 \
       AND d.refclassid NOT IN ('pg_class'::regclass, 'pg_namespace'::regclass, 'pg_constraint'::regclass)) \
     FROM pg_index AS i WHERE i.indexrelid = $1";

/// The same of a table's constraints, any of which may be new.
const PROOF_OF_CONSTRAINTS: &str = "SELECT 'pg_class'::regclass::oid, $1, \
      EXISTS (SELECT FROM profile_cache.attachment AS a WHERE a.problem IS NOT NULL) OR EXISTS (SELECT FROM ( \
       SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint AS k WHERE k.conrelid = $1 \
       UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index AS i WHERE i.indrelid = $1) AS o(classid, objid) \
      JOIN pg_depend AS d ON d.classid = o.classid AND d.objid = o.objid AND d.refobjid >= 16384 \
       AND d.refclassid NOT IN ('pg_class'::regclass, 'pg_namespace'::regclass, 'pg_constraint'::regclass))";

/// DDL on what the document depends on.
fn concern(effect: Effect, replaced: bool, drops: bool) {
    let gone = |r: &Recorded| {
        let exists = |oid| catalog::relation_name(oid).is_some();
        !exists(r.profile) || !exists(r.document)
    };
    if effect == Effect::Nothing || attachment::recorded().is_none_or(|r| gone(&r)) {
        // Every read fails without either, until attach(), which makes everything pending itself.
        return;
    }
    match effect {
        Effect::Nothing => {}
        Effect::Columns => {
            // Most columns are nobody's concern, and whoever adds one keeps no other migration from its lock.
            let alike = xact::subtransaction(|| {
                let recorded = attachment::recorded()?;
                let found = find(&recorded);
                Some(is_as_before(&recorded, &found) && changes_of_reached(&recorded).is_none())
            });
            if matches!(alike, Ok(Some(true))) {
                return;
            }
        }
        Effect::Proof => {}
        Effect::Document => pending::redefined("DDL"),
    }
    let done = xact::subtransaction(|| {
        // One after the other: who comes later sees what the other's DDL has changed.
        if !attachment::try_lock_row() {
            return false;
        }
        let Some(recorded) = attachment::recorded() else {
            return true;
        };
        // Where something is left to refresh already, so is this: it finds out whom writers have gone by.
        if recorded.unseen {
            return false;
        }
        let found = find(&recorded);
        if effect != Effect::Document
            && let Some(d) = follows_as_before(&recorded, &found)
        {
            // It may be proven by other indexes; and every backend asks again whose code is run.
            keep(d);
        }
        if effect == Effect::Document || !is_as_before(&recorded, &found) {
            pending::redefined("DDL");
            rediscover(&recorded, found, replaced);
        } else if drops {
            // Nothing new is reached, and what no longer is does no harm.
            return true;
        }
        write_reached(&recorded)
    });
    match done {
        Ok(true) => {}
        Ok(false) => unseen(),
        // In a transaction that keeps one snapshot, the same.
        Err(failure) if failure.sqlstate == "40001" => unseen(),
        Err(_) => {
            unseen();
            warning(
                "profile_cache could not find out anew what the document depends on",
                "Reads compute the document until the next refresh, or SELECT profile_cache.attach() with the same arguments, has found it out.",
            );
        }
    }
}

/// Leaves DDL that concerns the document to refresh or attach. Whatever comes to be written down until then, it does.
fn unseen() {
    pending::unseen(&[here().1]);
}

/// What the document depends on now. The views that it reads are not kept locked: whoever replaces one next
/// shall not wait for this transaction.
fn find(recorded: &Recorded) -> Result<Definition, Error> {
    let looked = xact::look(|| {
        let _us = as_ourselves();
        let key = recorded.definition.as_ref().map_or("", |d| &d.view_key);
        discover::discover(recorded.profile, recorded.document, Key::Shown(key))
    });
    match looked {
        Ok(found) => found.map(|f| f.definition),
        Err(failure) => failure.raise(),
    }
}

/// The definition, where changes are followed as before.
fn follows_as_before<'a>(
    recorded: &Recorded,
    found: &'a Result<Definition, Error>,
) -> Option<&'a Definition> {
    let before = recorded.definition.as_ref().filter(|_| !recorded.problem)?;
    found.as_ref().ok().filter(|d| before.follows_as(d))
}

/// Whether they are, and all is well.
fn is_as_before(recorded: &Recorded, found: &Result<Definition, Error>) -> bool {
    follows_as_before(recorded, found).is_some() && is_well()
}

/// Whether what is attached can be used, and documents are trusted.
fn is_well() -> bool {
    matches!(attachment::load(), State::Ready(a) if a.distrust.is_none())
}

/// Writes down a definition that follows changes as before.
fn keep(d: &Definition) {
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.attachment SET definition = $1::jsonb WHERE definition <> $1::jsonb",
        &[Arg::text(&serde_json::to_string(d).unwrap_or_default())],
    );
    if let Some((home, _)) = home() {
        catalog::invalidate(home);
    }
}

/// Writes down that writers may have gone by less than the view shows: attach, which waits for them,
/// ends that.
fn distrust_until_attach() -> u64 {
    spi::run(
        "UPDATE profile_cache.attachment SET problem = $1",
        &[Arg::text(&Error::DocumentWidened.message())],
    )
}

/// Writes down what the document depends on now, or why that can no longer be told. Everything is
/// pending already, and whoever made it so tells every backend to look again.
fn rediscover(recorded: &Recorded, found: Result<Definition, Error>, replaced: bool) {
    let _us = as_ourselves();
    let widened = Error::DocumentWidened.message();
    // A renamed or retyped column: what the pending rows say of it means nothing any more.
    let led_by = |d: &Definition| -> Vec<Link> {
        let links = d.tables.iter().flat_map(|t| t.links.clone());
        let watching_nothing = |l| Link { watched: vec![], everyone: vec![], ..l };
        links.map(watching_nothing).collect()
    };
    // What could not be proven when the view was replaced may be provable now: the recorded definition
    // is still the one that writers have gone by.
    let covered = |d: &Definition| {
        let before = recorded.definition.as_ref();
        !(replaced || recorded.problem) || before.is_some_and(|before| discover::covers(before, d))
    };
    if let Ok(d) = &found
        && recorded.definition.as_ref().map(led_by) != Some(led_by(d))
    {
        pending::forget_values();
    }
    // Reads fail as long as the view could run another role's code as the tables' owner.
    let is_unsafe = found.as_ref().is_err_and(Error::is_unsafe);
    let mut news = spi::run(
        "UPDATE profile_cache.attachment SET unsafe = $1 WHERE unsafe <> $1",
        &[Arg::bool(is_unsafe)],
    );
    match found {
        Ok(d) if !covered(&d) => distrust_until_attach(),
        // Only attach, which waits for writers, ends the distrust of a view that has become wider.
        Ok(d) => spi::run(
            "UPDATE profile_cache.attachment SET definition = $1::jsonb, problem = NULL \
             WHERE problem IS DISTINCT FROM $2 AND (definition <> $1::jsonb OR problem IS NOT NULL)",
            &[Arg::text(&serde_json::to_string(&d).unwrap_or_default()), Arg::text(&widened)],
        ),
        Err(e) => {
            let why = e.message();
            news += spi::run(
                "UPDATE profile_cache.attachment SET problem = $1 \
                 WHERE problem IS DISTINCT FROM $1 AND problem IS DISTINCT FROM $2",
                &[Arg::text(&why), Arg::text(&widened)],
            );
            if is_unsafe && news > 0 {
                warning(
                    &format!("reads of cached profiles fail from now on: {why}"),
                    "SELECT profile_cache.attach(), with the same arguments, says what to do.",
                );
            }
            news
        }
    };
}

/// What is to be added to `reached` and taken from it, beside what is another database's.
struct Changes {
    added: Vec<(Object, bool)>,
    gone: Vec<(Object, bool)>,
    /// There was nothing of this database.
    all: bool,
}

/// How what is written down differs from what it should be; None where it does not.
fn changes_of_reached(recorded: &Recorded) -> Option<Changes> {
    let _us = as_ourselves();
    let mut relations = attachment::relations_of_view(recorded.document);
    relations.push(recorded.profile);
    let read = |sql: &str, arg: Arg| -> HashMap<Object, bool> {
        let found =
            spi::all(sql, At::Latest, &[arg], |r| Some(((r.oid(1)?, r.oid(2)?), r.bool(3)?)));
        found.into_iter().flatten().collect()
    };
    let mut now = read(&reach::concerned_beside(), Arg::oids(&relations));
    now.extend(read(&reach::concerned(), Arg::oids(&relations)));
    now.insert(here(), true);
    let before = read(
        "SELECT r.classid, r.objid, r.shown FROM profile_cache.reached AS r WHERE r.server = $1",
        Arg::int8(Some(catalog::place().0)),
    );
    let beyond = |a: &HashMap<Object, bool>, b: &HashMap<Object, bool>| {
        let not_there = a.iter().filter(|(o, shown)| b.get(o) != Some(shown));
        not_there.map(|(o, shown)| (*o, *shown)).collect()
    };
    let changes = Changes {
        added: beyond(&now, &before),
        gone: beyond(&before, &now),
        all: !before.contains_key(&here()),
    };
    (!changes.added.is_empty() || !changes.gone.is_empty()).then_some(changes)
}

/// Writes down all that DDL may be about that concerns the document. By who has the attachment's row locked. False
/// where DDL on something that is new here may be under way, and has not found it here.
fn write_reached(recorded: &Recorded) -> bool {
    let Some(changes) = changes_of_reached(recorded) else {
        return true;
    };
    let _us = as_ourselves();
    let server = || Arg::int8(Some(catalog::place().0));
    let columns = |objects: &[(Object, bool)]| {
        let (classes, objects): (Vec<Oid>, Vec<Oid>) = objects.iter().map(|(o, _)| *o).unzip();
        [Arg::oids(&classes), Arg::oids(&objects)]
    };
    let [classes, objects] = columns(&changes.gone);
    spi::run(
        "DELETE FROM profile_cache.reached AS r WHERE r.server <> $1 \
          OR (r.classid, r.objid) IN (SELECT o.classid, o.objid FROM unnest($2, $3) AS o(classid, objid))",
        &[server(), classes, objects],
    );
    for shown in [false, true] {
        let some = changes.added.iter().filter(|(_, s)| *s == shown);
        let [classes, objects] = columns(&some.copied().collect::<Vec<_>>());
        spi::run(
            "INSERT INTO profile_cache.reached (server, classid, objid, shown) \
             SELECT $1, o.classid, o.objid, $4 FROM unnest($2, $3) AS o(classid, objid)",
            &[server(), classes, objects, Arg::bool(shown)],
        );
    }
    // DDL on relations waits for whoever makes a view of them, and for attach. Where only the type of their rows is
    // named, computing tries the relation's lock.
    let apart = |(o, _): &(Object, bool)| {
        [pg_sys::RelationRelationId, pg_sys::TriggerRelationId, PG_CONSTRAINT].contains(&o.0)
    };
    changes.all
        || changes.added.iter().all(apart)
        || home().is_none_or(|(home, _)| tuple::try_lock_against_writers(home))
}

/// Keeps the relations of row types that the view reaches from being altered, as attach keeps the tables: whoever
/// prints a row opens its type's relation.
pub fn hold_row_types(profile: Oid, document: Oid) {
    let _us = as_ourselves();
    let types = reach::Reached::by_view(profile, document).types();
    let rows = spi::all(
        "SELECT t.typrelid FROM pg_type AS t WHERE t.oid = ANY ($1) AND t.typrelid <> 0",
        At::Latest,
        &[Arg::oids(&types)],
        |r| r.oid(1),
    );
    let rows: Vec<Oid> = rows.into_iter().flatten().collect();
    if !rows.iter().copied().all(tuple::try_lock_for_reading) {
        let wanted: Vec<_> = rows.iter().map(|r| (*r, Mode::AccessShare)).collect();
        Error::TablesBusy(blockers(&wanted)).raise();
    }
}

/// The OID of pg_constraint itself (pg_constraint.h), which pgrx does not bind.
const PG_CONSTRAINT: Oid = Oid::from_u32(2606);

/// DDL that has been committed and that nobody has looked at.
pub struct Unseen {
    id: Uuid,
    about: Vec<Oid>,
}

/// What is committed and over ([`pending::OVER`]).
pub fn unseen_ones() -> Vec<Unseen> {
    let _us = as_ourselves();
    let found = spi::all(
        &format!(
            "SELECT p.id, p.about::text[] FROM profile_cache.pending_epoch AS p WHERE p.about IS NOT NULL AND {}",
            pending::OVER
        ),
        At::New,
        &[],
        |r| {
            let about = r.texts(2)?;
            let about = about.iter().filter_map(|o| o.parse().ok()).map(Oid::from_u32);
            Some(Unseen { id: r.uuid(1)?, about: about.collect() })
        },
    );
    catalog::accept_invalidations();
    found.into_iter().flatten().collect()
}

/// What refresh has found to be done about DDL.
pub enum Look {
    Nothing,
    /// Another transaction is in the way: nothing would be trusted.
    Busy,
    /// It is done, and to be committed.
    Done,
}

/// Looks at DDL that nobody could look at, before its epoch gets a number.
pub fn look_again(a: &Attached) -> Look {
    let (server, database) = catalog::place();
    let (waiting, written) = {
        let _us = as_ourselves();
        spi::one(
            "SELECT EXISTS (SELECT FROM profile_cache.pending_epoch AS p WHERE p.about IS NOT NULL), \
              EXISTS (SELECT FROM profile_cache.reached AS r WHERE (r.server, r.objid, r.classid) = ($1, $2, 'pg_database'::regclass))",
            At::New,
            &[Arg::int8(Some(server)), Arg::oid(database)],
            |r| (r.bool(1) != Some(false), r.bool(2) == Some(true)),
        )
        .unwrap_or((true, false))
    };
    // An index by which something was proven can go without an event that names it.
    let outdated = matches!(a.distrust, Some(Distrust::Problem(_)));
    if !waiting && !outdated && written {
        return Look::Nothing;
    }
    let looked = xact::attempt(|| {
        let locked = attachment::try_lock_row()
            && home().is_some_and(|(home, _)| tuple::try_lock_against_writers(home));
        // DDL that is under way and that may be about what is new in `reached` has that table locked.
        let ones = if locked { unseen_ones() } else { vec![] };
        let recorded = attachment::recorded().filter(|_| locked && waiting != ones.is_empty());
        let Some(recorded) = recorded else { Error::TablesBusy(vec![]).raise() };
        let mut done = settle(&recorded, &ones, || {
            let found = find(&recorded);
            // Writers since then have gone by the definition of before.
            if no_writers(&recorded) {
                let settled = Recorded { problem: false, ..recorded.clone() };
                rediscover(&settled, found, false);
            } else {
                rediscover(&recorded, found, true);
            }
        });
        if outdated
            && let found = find(&recorded)
            && let Some(d) = follows_as_before(&recorded, &found)
            && recorded.definition.as_ref() != Some(d)
        {
            keep(d);
            done = true;
        }
        done
    });
    match looked {
        Ok(true) => Look::Done,
        Ok(false) => Look::Nothing,
        Err(failure) if failure.sqlstate == "55P03" => {
            if !waiting {
                return Look::Nothing;
            }
            Look::Busy
        }
        Err(failure) => failure.raise(),
    }
}

/// Whether anything is written down in `reached` for this database.
fn is_written() -> bool {
    let _us = as_ourselves();
    reached(&[]).contains_key(&here())
}

/// Keeps writers from the tables until the transaction ends, as attach does, where none is at work now or soon.
fn no_writers(recorded: &Recorded) -> bool {
    let mut tables = attachment::relations_of_view(recorded.document);
    tables.push(recorded.profile);
    tables.retain(|t| catalog::is_table(*t));
    (0..20).any(|_| {
        let locked = xact::subtransaction(|| {
            if !tables.iter().all(|t| tuple::try_lock_against_writers(*t)) {
                Error::TablesBusy(vec![]).raise();
            }
        });
        if locked.is_err() {
            xact::sleep(5);
        }
        locked.is_ok()
    })
}

/// Decides about DDL that nobody has looked at, by who keeps all other DDL out: what concerns the document is
/// looked at by `look`, and may get a number then; the rest has never been. Writes `reached` anew. Whether
/// that changed anything.
pub fn settle(recorded: &Recorded, ones: &[Unseen], look: impl FnOnce()) -> bool {
    let about: HashSet<Oid> = ones.iter().flat_map(|u| u.about.clone()).collect();
    let about: Vec<Oid> = about.into_iter().collect();
    let known = || -> HashSet<Oid> {
        let _us = as_ourselves();
        spi::all(
            "SELECT DISTINCT r.objid FROM profile_cache.reached AS r WHERE r.server = $1 AND r.objid = ANY ($2)",
            At::Latest,
            &[Arg::int8(Some(catalog::place().0)), Arg::oids(&about)],
            |r| r.oid(1),
        )
        .into_iter()
        .flatten()
        .collect()
    };
    let ours = is_written();
    let mut concerned = known();
    write_reached(recorded);
    concerned.extend(known());
    let (real, idle): (Vec<&Unseen>, Vec<&Unseen>) =
        ones.iter().partition(|u| !ours || u.about.iter().any(|o| concerned.contains(o)));
    let ids = |list: Vec<&Unseen>| {
        let ids: Vec<Uuid> = list.iter().map(|u| u.id).collect();
        Arg::uuids(&ids)
    };
    if !real.is_empty() {
        look();
        write_reached(recorded);
    }
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.pending_epoch SET about = NULL WHERE id = ANY ($1)",
        &[ids(real)],
    );
    spi::run("DELETE FROM profile_cache.pending_epoch WHERE id = ANY ($1)", &[ids(idle)]);
    if !ones.is_empty()
        && let Some((home, _)) = home()
    {
        catalog::invalidate(home);
    }
    !ours || !ones.is_empty()
}
