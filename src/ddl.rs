//! The event triggers: DDL on anything the document depends on.
//!
//! Invariant: such DDL makes everything pending in its own transaction; what the document depends on
//! is then discovered anew, so that renames carry over and anything that can no longer be proven is
//! written down as the attachment's problem. No table is locked and no view waited for. An error of ours
//! fails the app's DDL only where not even that can be written, or where waiting for other DDL that
//! concerns the document ends in one (a timeout, a deadlock).

use crate::attachment::{self, Attached, Recorded, State};
use crate::closure;
use crate::discovery::{self, Key};
use crate::error::{Error, warning};
use crate::pending;
use crate::pg::fmgr::{Call, Return};
use crate::pg::spi::{self, Arg, At};
use crate::pg::{Oid, catalog};
use crate::pg::{tuple, xact};
use crate::rights::{self, as_ourselves, home};
use crate::routes::{Definition, Link};

/// Commands that cannot change a document or who is told of changes.
const HARMLESS: &str = "'COMMENT', 'GRANT', 'REVOKE', 'SECURITY LABEL', 'CREATE INDEX', 'CREATE STATISTICS', \
     'ALTER STATISTICS', 'CREATE POLICY', 'ALTER POLICY', 'ALTER DEFAULT PRIVILEGES', 'REFRESH MATERIALIZED VIEW'";

/// What of text search can be altered although it is pinned, so that pg_depend does not say who uses it.
const TEXT_SEARCH: &str = "'pg_ts_config'::regclass, 'pg_ts_dict'::regclass";

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

/// Of a command that touches the closure: that it gives a view another query. Unlike DDL on a table,
/// it waits for nobody who writes one.
const REPLACING: &str = "c.command_tag IN ('CREATE VIEW', 'CREATE RULE')";

/// `profile_cache.on_ddl()`, for ddl_command_end and sql_drop.
pub fn on_ddl(call: &Call) -> Return {
    let Some((event, tag)) = call.event_trigger() else {
        Error::NotATrigger("profile_cache.on_ddl()").raise()
    };
    if attachment::Attaching::under_way() {
        return Return::Null;
    }
    if rights::home().is_some() && all_temporary(&event) {
        return Return::Null;
    }
    // attach waits for DDL that is under way, and DDL for attach: neither can miss the other.
    if !APART.contains(&tag.as_str())
        && let Some((home, _)) = home()
    {
        tuple::lock_for_writing(home);
    }
    let a = match attachment::load() {
        State::None => return Return::Null,
        State::Ready(a) => a,
        // Every read fails now. A renamed key can be found again; else attach is needed, which makes
        // everything pending itself.
        State::Gone(_) => {
            let found = attachment::recorded().filter(|r| {
                catalog::relation_name(r.profile).is_some()
                    && catalog::relation_name(r.document).is_some()
            });
            if let Some(recorded) = found {
                pending::redefined("DDL");
                let _ = xact::subtransaction(|| rediscover(&recorded, false));
            }
            return Return::Null;
        }
    };
    if tag.ends_with("SUBSCRIPTION") {
        // Whether the tables are a target of logical replication may have changed, and its apply
        // fires no statement triggers.
        pending::applied("DDL on a subscription");
        attachment::relation_changed(a.profile);
        return Return::Null;
    }
    // With a name that no longer resolves, or a trigger just gone, there is nothing to find out. An
    // extension moves whatever is in it, operators of foreign keys too.
    let moves = ["ALTER EXTENSION", "ALTER OPERATOR"];
    let known = a.distrust.is_none()
        && !a.tables.is_empty()
        && !moves.iter().any(|command| tag.starts_with(command));
    let affected = xact::subtransaction(|| {
        let _us = as_ourselves();
        if event == "sql_drop" {
            (dropped(&a), false)
        } else {
            changed(&a)
        }
    });
    // What we cannot decide, we distrust.
    let (affected, replaced) = affected.unwrap_or((true, true));
    if affected || !known {
        pending::redefined("DDL");
        let found = xact::subtransaction(|| {
            // One after the other: who comes later sees what the other's DDL has changed.
            attachment::lock_row();
            if let Some(recorded) = attachment::recorded() {
                rediscover(&recorded, replaced);
            }
        });
        if found.is_err() {
            // What writers go by may no longer be what the view shows.
            let distrusted = xact::subtransaction(|| {
                let _us = as_ourselves();
                distrust_until_attach();
                if let Some((home, _)) = home() {
                    catalog::invalidate(home);
                }
            });
            if let Err(failure) = distrusted {
                failure.raise();
            }
            warning(
                "profile_cache could not find out anew what the document depends on",
                "Reads compute the document until SELECT profile_cache.attach() is run again, with the same arguments.",
            );
        }
    }
    Return::Null
}

/// Whether the event is about objects of the session's own alone, which nothing that lasts depends on. Whoever
/// may make some need hold up nobody.
fn all_temporary(event: &str) -> bool {
    let sql = if event == "sql_drop" {
        "SELECT bool_and(d.is_temporary OR coalesce(d.schema_name, d.object_identity) ~ '^[(]?pg_temp') FROM pg_event_trigger_dropped_objects() AS d"
    } else {
        "SELECT bool_and(coalesce(c.schema_name, c.object_identity) ~ '^[(]?pg_temp') FROM pg_event_trigger_ddl_commands() AS c"
    };
    let _us = as_ourselves();
    spi::one(sql, At::Latest, &[], |r| r.bool(1) == Some(true)) == Some(true)
}

fn used(a: &Attached) -> Vec<Oid> {
    a.tables
        .iter()
        .map(|t| t.oid)
        .chain([a.profile, a.document])
        .collect()
}

/// Whether the command that just ended touched the closure, and whether by replacing the view.
fn changed(a: &Attached) -> (bool, bool) {
    spi::one(
        &format!(
            "{} SELECT count(*) > 0, coalesce(bool_or({REPLACING}), false) \
             FROM pg_event_trigger_ddl_commands() AS c \
             WHERE c.command_tag NOT IN ({HARMLESS}) AND (c.classid IN ({TEXT_SEARCH}) AND c.objid < 12000 \
              OR c.classid = 'pg_namespace'::regclass AND c.objid = 'profile_cache'::regnamespace \
              OR EXISTS (SELECT FROM reached AS u WHERE (u.classid, u.objid) = (c.classid, c.objid) \
               OR (u.classid = 'pg_class'::regclass AND u.objid IN ( \
                  SELECT g.tgrelid FROM pg_trigger AS g WHERE c.classid = 'pg_trigger'::regclass AND g.oid = c.objid \
                 UNION ALL SELECT k.conrelid FROM pg_constraint AS k WHERE c.classid = 'pg_constraint'::regclass AND k.oid = c.objid \
                 UNION ALL SELECT i.indrelid FROM pg_index AS i WHERE c.classid = 'pg_class'::regclass AND i.indexrelid = c.objid \
                 UNION ALL SELECT h.inhparent FROM pg_inherits AS h WHERE c.classid = 'pg_class'::regclass AND h.inhrelid = c.objid \
                 UNION ALL SELECT w.ev_class FROM pg_rewrite AS w WHERE c.classid = 'pg_rewrite'::regclass AND w.oid = c.objid))))",
            closure::reached(closure::RELATIONS)
        ),
        At::Latest,
        &[Arg::oids(&used(a))],
        |r| (r.bool(1) != Some(false), r.bool(2) == Some(true)),
    )
    .unwrap_or((true, true))
}

/// Whether something that was dropped belonged to what the document depends on. The catalogs no
/// longer say so: go by what is missing now, and by the names that the event gives.
fn dropped(a: &Attached) -> bool {
    if used(a)
        .iter()
        .any(|oid| catalog::relation_name(*oid).is_none())
    {
        return true;
    }
    let names: Vec<String> = a
        .definition
        .tables
        .iter()
        .flat_map(|t| [t.schema.clone() + "." + &t.name])
        .collect();
    spi::one(
        "SELECT FROM pg_event_trigger_dropped_objects() AS d \
         WHERE NOT d.is_temporary AND (d.object_type = 'cast' AND d.address_args[1] IN ('json', 'pg_catalog.json') \
           AND d.object_identity !~ 'pg_temp' OR cardinality(d.address_names) >= 2 \
          AND d.object_type NOT IN ('policy', 'default value') \
          AND d.address_names[1] || '.' || d.address_names[2] = ANY ($1)) LIMIT 1",
        At::Latest,
        &[Arg::texts(&names)],
        |_| (),
    )
    .is_some()
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
/// pending already.
fn rediscover(recorded: &Recorded, replaced: bool) {
    let _us = as_ourselves();
    let exists = |oid| catalog::relation_name(oid).is_some();
    let widened = Error::DocumentWidened.message();
    let found = if exists(recorded.profile) && exists(recorded.document) {
        let key = recorded.definition.as_ref().map_or("", |d| &d.view_key);
        discovery::discover(recorded.profile, recorded.document, Key::Shown(key))
    } else {
        Err(Error::DocumentGone)
    };
    // A renamed or retyped column: what the pending rows say of it means nothing any more.
    let led_by = |d: &Definition| -> Vec<Link> {
        let links = d.tables.iter().flat_map(|t| t.links.clone());
        let watching_nothing = |l| Link {
            watched: vec![],
            everyone: vec![],
            ..l
        };
        links.map(watching_nothing).collect()
    };
    // What could not be proven when the view was replaced may be provable now: the recorded definition
    // is still the one that writers have gone by.
    let covered = |d: &Definition| {
        let before = recorded.definition.as_ref();
        !(replaced || recorded.problem) || before.is_some_and(|before| discovery::covers(before, d))
    };
    let found = found.map(|f| f.definition);
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
            &[
                Arg::text(&serde_json::to_string(&d).unwrap_or_default()),
                Arg::text(&widened),
            ],
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
    if let Some((home, _)) = home() {
        // Every backend looks at the tables again, whether or not the row above changed.
        catalog::invalidate(home);
    }
}
