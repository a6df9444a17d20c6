//! The table `reached`: every object whose DDL may concern the document, and whether it can change one or only
//! what is proven.
//!
//! Invariant: it is written by whoever has the attachment's row locked. What is new in it may already be the
//! object of DDL that has not found it there: then whoever writes it says so, and somebody looks again.
//!
//! Rules: D5, D7, D10.

use crate::attachment::{self, Recorded};
use crate::blockers::{Mode, blockers};
use crate::error::Error;
use crate::pending;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog, locks};
use crate::proof::reach;
use crate::rights::{as_ourselves, home};
use pgrx::pg_sys;
use std::collections::{HashMap, HashSet};

/// An object, by its catalog and its number.
pub(super) type Object = (Oid, Oid);

/// The database, which stands in `reached` beside what was written down for it.
pub(super) fn here() -> Object {
    (pg_sys::DatabaseRelationId, catalog::place().1)
}

/// Which of these are written down, with [`here`], and whether their DDL can change a document.
pub(super) fn reached(about: &[Object]) -> HashMap<Object, bool> {
    let asked: HashSet<Object> = about.iter().copied().chain([here()]).collect();
    let objects: Vec<Oid> = asked.iter().map(|(_, object)| *object).collect();
    let found = spi::all(
        "SELECT r.classid, r.objid, r.shown FROM profile_cache.reached AS r WHERE r.server = $1 AND r.objid = ANY ($2)",
        Snapshot::Latest,
        &[Arg::int8(Some(catalog::place().0)), Arg::oids(&objects)],
        |r| Some(((r.oid(1)?, r.oid(2)?), r.bool(3)?)),
    );
    let found = found.into_iter().flatten();
    found.filter(|(object, _)| asked.contains(object)).collect()
}

/// Whether anything is written down in `reached` for this database.
pub(super) fn is_written() -> bool {
    let _us = as_ourselves();
    reached(&[]).contains_key(&here())
}

/// What is to be added to `reached` and taken from it, beside what is another database's.
pub(super) struct Changes {
    added: Vec<(Object, bool)>,
    gone: Vec<(Object, bool)>,
    /// There was nothing of this database.
    all: bool,
}

/// How what is written down differs from what it should be; None where it does not.
pub(super) fn changes_of_reached(recorded: &Recorded) -> Option<Changes> {
    let _us = as_ourselves();
    let mut relations = attachment::relations_of_view(recorded.document);
    relations.push(recorded.profile);
    let read = |sql: &str, arg: Arg| -> HashMap<Object, bool> {
        let found =
            spi::all(sql, Snapshot::Latest, &[arg], |r| Some(((r.oid(1)?, r.oid(2)?), r.bool(3)?)));
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

/// Writes down all that DDL may be about that concerns the document. By who has the attachment's row locked.
pub(super) fn write_reached(recorded: &Recorded) {
    if let Some(changes) = changes_of_reached(recorded) {
        write(&changes);
    }
}

pub(super) fn write(changes: &Changes) {
    if changes.all {
        pending::of_elsewhere(here().1);
    }
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
}

impl Changes {
    /// Where the document has come to depend on something new: keeps DDL on that from going unnoticed, until the
    /// transaction ends. False where some may be under way, and has not found it written down.
    pub(super) fn keep_ddl_out(&self) -> bool {
        // DDL on relations waits for whoever makes a view of them, and for attach. Where only the type of their rows
        // is named, computing tries the relation's lock.
        let apart = |(o, _): &(Object, bool)| {
            [pg_sys::RelationRelationId, pg_sys::TriggerRelationId, PG_CONSTRAINT].contains(&o.0)
        };
        self.all
            || self.added.iter().all(apart)
            || home().is_none_or(|(home, _)| locks::try_lock_against_writers(home))
    }
}

/// Keeps the relations of row types that the view reaches from being altered, as attach keeps the tables: whoever
/// prints a row opens its type's relation.
pub fn hold_row_types(profile: Oid, document: Oid) {
    let _us = as_ourselves();
    let types = reach::Reached::by_view(profile, document).types();
    let rows = spi::all(
        "SELECT t.typrelid FROM pg_type AS t WHERE t.oid = ANY ($1) AND t.typrelid <> 0",
        Snapshot::Latest,
        &[Arg::oids(&types)],
        |r| r.oid(1),
    );
    let rows: Vec<Oid> = rows.into_iter().flatten().collect();
    if !rows.iter().copied().all(locks::try_lock_for_reading) {
        let wanted: Vec<_> = rows.iter().map(|r| (*r, Mode::AccessShare)).collect();
        Error::TablesBusy(blockers(&wanted)).raise();
    }
}

/// The OID of pg_constraint itself (pg_constraint.h), which pgrx does not bind.
pub(super) const PG_CONSTRAINT: Oid = Oid::from_u32(2606);
