//! The event triggers: DDL on anything the document depends on.
//!
//! Invariant: such DDL makes everything pending in its own transaction; what the document depends on
//! is then discovered anew, so that renames carry over and anything that can no longer be proven is
//! written down as the attachment's problem. An error of ours never fails the app's DDL.

use crate::attachment::{self, Attached, State, as_ourselves};
use crate::discovery;
use crate::error::{Error, warning};
use crate::pending;
use crate::pg::fmgr::{Call, Return};
use crate::pg::spi::{self, Arg, At};
use crate::pg::xact;
use crate::pg::{Oid, catalog};
use crate::session;

/// Everything the document depends on: the attached tables, the view, and whatever its rule uses, at
/// any depth: nested views, functions, types and their parts, operators, collations, and the casts that
/// to_jsonb looks up by itself. $1: tables and view.
const CLOSURE: &str = "WITH RECURSIVE uses(classid, objid) AS ( \
      SELECT 'pg_class'::regclass::oid, o FROM unnest($1) AS o \
     UNION \
      SELECT n.classid, n.objid FROM uses AS u CROSS JOIN LATERAL ( \
        SELECT d.refclassid, d.refobjid FROM pg_depend AS d \
         WHERE d.classid = u.classid AND d.objid = u.objid AND d.deptype IN ('n', 'i', 'a') \
          AND d.refclassid IN ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass, 'pg_collation'::regclass, 'pg_namespace'::regclass) \
        UNION ALL \
        SELECT d.refclassid, d.refobjid FROM pg_rewrite AS w JOIN pg_depend AS d \
          ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid \
         WHERE u.classid = 'pg_class'::regclass AND w.ev_class = u.objid \
        UNION ALL SELECT 'pg_class'::regclass, t.typrelid FROM pg_type AS t \
         WHERE u.classid = 'pg_type'::regclass AND t.oid = u.objid AND t.typrelid <> 0 \
        UNION ALL SELECT 'pg_type'::regclass, t.typelem FROM pg_type AS t \
         WHERE u.classid = 'pg_type'::regclass AND t.oid = u.objid AND t.typelem <> 0 \
        UNION ALL SELECT 'pg_type'::regclass, r.rngsubtype FROM pg_range AS r \
         WHERE u.classid = 'pg_type'::regclass AND r.rngtypid = u.objid \
        UNION ALL SELECT k.c, k.o FROM pg_cast AS t, LATERAL (VALUES ('pg_cast'::regclass, t.oid), \
          ('pg_proc'::regclass, t.castfunc)) AS k(c, o) \
         WHERE u.classid = 'pg_type'::regclass AND t.castsource = u.objid AND t.castmethod = 'f' AND t.oid >= 16384 \
        ) AS n(classid, objid)) ";

/// Commands that cannot change a document or who is told of changes.
const HARMLESS: &str = "'COMMENT', 'GRANT', 'REVOKE', 'SECURITY LABEL', 'CREATE INDEX', 'CREATE STATISTICS', \
     'ALTER STATISTICS', 'CREATE POLICY', 'ALTER POLICY', 'ALTER DEFAULT PRIVILEGES', 'REFRESH MATERIALIZED VIEW'";

/// Of a command that touches the closure: that it gives the document view (oid $2) another query.
const REPLACING: &str = "c.command_tag IN ('CREATE VIEW', 'CREATE RULE') AND (c.objid = $2 OR EXISTS \
     (SELECT FROM pg_rewrite AS w WHERE w.oid = c.objid AND w.ev_class = $2))";

/// `profile_cache.on_ddl()`, for ddl_command_end and sql_drop.
pub fn on_ddl(call: &Call) -> Return {
    let Some((event, tag)) = call.event_trigger() else {
        Error::NotATrigger("profile_cache.on_ddl()").raise()
    };
    if attachment::Attaching::under_way() {
        return Return::Null;
    }
    let a = match attachment::load() {
        State::None => return Return::Null,
        State::Ready(a) => a,
        // Every read fails now. A renamed key can be found again; else attach is needed, which makes
        // everything pending itself.
        State::Gone(_) => {
            let found = attachment::oids().filter(|(p, d)| {
                catalog::relation_name(*p).is_some() && catalog::relation_name(*d).is_some()
            });
            if let Some((profile, document)) = found {
                pending::everything("DDL");
                let _ = xact::subtransaction(|| rediscover(profile, document, false));
            }
            return Return::Null;
        }
    };
    if tag.ends_with("SUBSCRIPTION") {
        // Whether the tables are a target of logical replication may have changed, and its apply
        // fires no statement triggers.
        pending::everything("DDL on a subscription");
        attachment::relation_changed(a.profile);
        return Return::Null;
    }
    // With a name that no longer resolves, or a trigger just gone, there is nothing to find out. An
    // extension or a schema moves whatever is in it, operators of foreign keys too.
    let moves = ["ALTER EXTENSION", "ALTER OPERATOR", "ALTER SCHEMA"];
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
    let (affected, replaced) = affected.unwrap_or((true, false));
    if affected || !known {
        pending::everything("DDL");
        if xact::subtransaction(|| rediscover(a.profile, a.document, replaced)).is_err() {
            warning(
                "profile_cache could not find out anew what the document depends on",
                "Reads compute the document until SELECT profile_cache.attach() is run again.",
            );
        }
    }
    Return::Null
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
            "{CLOSURE} SELECT count(*) > 0, coalesce(bool_or({REPLACING}), false) \
             FROM pg_event_trigger_ddl_commands() AS c \
             WHERE c.command_tag NOT IN ({HARMLESS}) AND EXISTS (SELECT FROM uses AS u \
              WHERE (u.classid, u.objid) = (c.classid, c.objid) \
               OR (u.classid = 'pg_class'::regclass AND u.objid IN ( \
                  SELECT g.tgrelid FROM pg_trigger AS g WHERE c.classid = 'pg_trigger'::regclass AND g.oid = c.objid \
                 UNION ALL SELECT k.conrelid FROM pg_constraint AS k WHERE c.classid = 'pg_constraint'::regclass AND k.oid = c.objid \
                 UNION ALL SELECT i.indrelid FROM pg_index AS i WHERE c.classid = 'pg_class'::regclass AND i.indexrelid = c.objid \
                 UNION ALL SELECT h.inhparent FROM pg_inherits AS h WHERE c.classid = 'pg_class'::regclass AND h.inhrelid = c.objid \
                 UNION ALL SELECT w.ev_class FROM pg_rewrite AS w WHERE c.classid = 'pg_rewrite'::regclass AND w.oid = c.objid)))"
        ),
        At::Latest,
        &[Arg::oids(&used(a)), Arg::oid(a.document)],
        |r| (r.bool(1) != Some(false), r.bool(2) == Some(true)),
    )
    .unwrap_or((true, false))
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
         WHERE NOT d.is_temporary AND (d.object_type = 'cast' OR cardinality(d.address_names) >= 2 \
          AND d.object_type NOT IN ('policy', 'default value') \
          AND d.address_names[1] || '.' || d.address_names[2] = ANY ($1)) LIMIT 1",
        At::Latest,
        &[Arg::texts(&names)],
        |_| (),
    )
    .is_some()
}

/// Writes down what the document depends on now, or why that can no longer be told. Pending keys go:
/// everything is pending, and their column or its type may have changed.
fn rediscover(profile: Oid, document: Oid, replaced: bool) {
    let _us = as_ourselves();
    let exists =
        catalog::relation_name(profile).is_some() && catalog::relation_name(document).is_some();
    let by_hand = Error::DocumentReplaced.message();
    let found = if !exists {
        Err(Error::DocumentGone)
    } else if replaced {
        Err(Error::DocumentReplaced)
    } else {
        discovery::discover(profile, document)
    };
    match found {
        // Only attach ends the distrust of a view that was replaced by hand.
        Ok(d) => spi::run(
            "UPDATE profile_cache.attachment SET definition = $1::jsonb, problem = NULL \
             WHERE problem IS DISTINCT FROM $2 AND (definition <> $1::jsonb OR problem IS NOT NULL)",
            &[
                Arg::text(&serde_json::to_string(&d).unwrap_or_default()),
                Arg::text(&by_hand),
            ],
        ),
        Err(e) => spi::run(
            "UPDATE profile_cache.attachment SET problem = $1 \
             WHERE problem IS DISTINCT FROM $1 AND problem IS DISTINCT FROM $2",
            &[Arg::text(&e.message()), Arg::text(&by_hand)],
        ),
    };
    if let Some((home, _)) = attachment::home() {
        // Every backend looks at the tables again, whether or not the row above changed.
        catalog::invalidate(home);
    }
    session::forget_keys();
    spi::run("DELETE FROM profile_cache.pending WHERE kind = 'key'", &[]);
}
