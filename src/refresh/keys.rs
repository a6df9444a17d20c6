//! Draining the pending keys: single profiles that a change has named.
//!
//! Invariant: a pending key goes only after the rows that it names were locked, computed and written; or when no row
//! has it, and nobody is left who could bring one.
//!
//! Rules: E10, E11.

use super::batch::{read_keys, recompute};
use super::course::{Course, PAUSE};
use super::holders::{self, RUN};
use super::{Done, ready};
use crate::attachment::{Attached, Naming};
use crate::definition::{Step, by_column, value_columns, value_rows};
use crate::document::{self, Request};
use crate::pending;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::{Uuid, Value};
use crate::pg::xact;
use crate::rights::{as_ourselves, as_owner};
use std::rc::Rc;

/// One pending key as listed.
struct PendingKey {
    id: Uuid,
    columns: Vec<String>,
    values: Vec<String>,
}

/// One step of the pending keys, in the order of their ids. When all have had their turn, it begins again; those that must
/// wait (locked rows, rows yet to come) not at once.
pub(super) fn keys(a: &Rc<Attached>, course: &mut Course, most: i32) -> Done {
    let begins = course.key.is_none();
    if begins && !course.settling && xact::clock() - course.swept < PAUSE {
        return Done::default();
    }
    if !any_key() {
        course.key = None;
        return Done::default();
    }
    let a = match ready(a) {
        Ok(a) => a,
        Err(by) => return Done::held_up(by),
    };
    if begins {
        course.swept = xact::clock();
        tidy_keys();
    }
    let size = course.size(most);
    let listed = {
        let _us = as_ourselves();
        spi::all(
            "SELECT p.id, p.key_columns::text[], p.key_values FROM profile_cache.pending_key AS p \
             WHERE ($1 IS NULL OR p.id > $1) ORDER BY p.id LIMIT $2",
            Snapshot::New,
            &[Arg::uuid(course.key.as_ref()), Arg::int8(Some(i64::from(size)))],
            |r| Some(PendingKey { id: r.uuid(1)?, columns: r.texts(2)?, values: r.texts(3)? }),
        )
    };
    let listed: Vec<PendingKey> = listed.into_iter().flatten().collect();
    let (mut stored, mut gone) = (0, 0);
    for Naming { step, types, .. } in &a.naming {
        let columns = step.column_names();
        let mine: Vec<&PendingKey> = listed.iter().filter(|k| k.columns == columns).collect();
        if !mine.is_empty() {
            let (more, deleted) =
                course.measured(|(stored, _)| *stored, || keys_of(&a, step, types, &mine));
            stored += more;
            gone += deleted;
        }
    }
    let strangers: Vec<Uuid> = listed
        .iter()
        .filter(|k| !a.naming.iter().any(|n| n.step.column_names() == k.columns))
        .map(|k| k.id)
        .collect();
    if !strangers.is_empty() {
        // Nothing refers to that column any more, so nobody can be found by it.
        pending::invalidate_all("a pending key of a column that is no longer used");
        delete(&strangers);
    }
    let more = listed.len() == size as usize;
    course.key = listed.last().map(|k| k.id).filter(|_| more);
    // What was stored and has not ended a key would be stored again in the next round, and for ever.
    Done { stored, worked: gone > 0 || !strangers.is_empty(), held_up: None }
}

fn any_key() -> bool {
    let _us = as_ourselves();
    let sql = "SELECT FROM profile_cache.pending_key AS p LIMIT 1";
    spi::one(sql, Snapshot::New, &[], |_| ()).is_some()
}

/// Forgets what was noted for pending rows that are gone, and all but one of equal keys.
fn tidy_keys() {
    let _us = as_ourselves();
    spi::run(
        "DELETE FROM profile_cache.unmatched_key AS b WHERE NOT EXISTS \
         (SELECT FROM profile_cache.pending_key AS p WHERE p.id = b.pending) AND NOT EXISTS \
         (SELECT FROM profile_cache.pending_epoch AS e WHERE e.id = b.pending AND e.epoch IS NULL)",
        &[],
    );
    pending::delete_twins();
}

/// Pending keys of the same columns: those whose row could be locked, computed and written go; those that
/// no row has go once nobody is left who could bring it.
/// Documents stored, keys gone.
fn keys_of(a: &Attached, step: &Step, types: &[String], keys: &[&PendingKey]) -> (u64, usize) {
    let ids: Vec<Uuid> = keys.iter().map(|k| k.id).collect();
    let values: Vec<Vec<Value>> = {
        let _owner = as_owner(a.owner);
        let sql = format!("SELECT k.* FROM {} AS k", value_rows(types, 1));
        spi::all(&sql, Snapshot::New, &texts_of(types, keys), |r| {
            let values = (1..).map(|i| r.value(i)).take(types.len());
            values.collect::<Option<Vec<Value>>>()
        })
    }
    .into_iter()
    .flatten()
    .collect();
    let requests = [Request { step, values: &values, lookup: None }];
    let outcome = recompute(a, &requests);
    let found = outcome.done(0);
    let done = matching(a, step, types, keys, &ids, &found);
    delete(&done);
    let left: Vec<&PendingKey> = keys.iter().copied().filter(|k| !done.contains(&k.id)).collect();
    let mut gone = done.len();
    if !left.is_empty() {
        gone += absent(a, step, types, &left);
    }
    (outcome.stored, gone)
}

/// The keys' values, an array of texts for each column.
fn texts_of(types: &[String], keys: &[&PendingKey]) -> Vec<Arg> {
    let values: Vec<Vec<String>> = keys.iter().map(|k| k.values.clone()).collect();
    let columns = by_column(types.len(), &values);
    columns.iter().map(|texts| Arg::texts(texts)).collect()
}

/// Rows of the ids in $1 and the values from $2 on.
fn numbered(types: &[String]) -> String {
    let rows = value_rows(types, 2);
    format!(
        "{} AS k(id, {})",
        rows.replacen("ROWS FROM (", "ROWS FROM (pg_catalog.unnest($1), ", 1),
        value_columns(types.len())
    )
}

/// The ids whose values equal one of `found`, by the foreign key's own equality.
fn matching(
    a: &Attached,
    step: &Step,
    types: &[String],
    keys: &[&PendingKey],
    ids: &[Uuid],
    found: &[Vec<Value>],
) -> Vec<Uuid> {
    if found.is_empty() {
        return vec![];
    }
    let n = types.len();
    let mut args = vec![Arg::uuids(ids)];
    args.extend(texts_of(types, keys));
    args.extend(document::arrays_of(step, found));
    read_keys(
        a,
        &format!(
            "SELECT k.id FROM {} WHERE EXISTS (SELECT FROM {} AS f({}) WHERE {})",
            numbered(types),
            step.values_of(&a.profile_name, 2 + n),
            value_columns(n),
            step.equal("f", "k"),
        ),
        &args,
    )
}

/// Pending keys that no visible row has: noted with the present lock holders at first sight, dropped
/// when those are gone and a later snapshot still shows no row. How many were dropped.
fn absent(a: &Attached, step: &Step, types: &[String], keys: &[&PendingKey]) -> usize {
    let ids: Vec<Uuid> = keys.iter().map(|k| k.id).collect();
    let no_row = || {
        let mut args = vec![Arg::uuids(&ids)];
        args.extend(texts_of(types, keys));
        read_keys(
            a,
            &format!(
                "SELECT k.id FROM {} WHERE NOT EXISTS (SELECT FROM {} AS p WHERE {})",
                numbered(types),
                a.profile_name,
                step.equals("p", "k"),
            ),
            &args,
        )
    };
    let gone = no_row();
    if gone.is_empty() {
        return 0;
    }
    let holders = holders::holders(a.profile);
    {
        let _us = as_ourselves();
        spi::run(
            &format!(
                "INSERT INTO profile_cache.unmatched_key (pending, holders, server_start) \
                 SELECT i, $2, {RUN} FROM unnest($1) AS i \
                 ON CONFLICT (pending) DO UPDATE SET holders = excluded.holders, server_start = excluded.server_start \
                 WHERE unmatched_key.server_start <> excluded.server_start"
            ),
            &[Arg::uuids(&gone), Arg::texts(&holders)],
        );
    }
    let waited = {
        let _us = as_ourselves();
        spi::all(
            "SELECT b.pending FROM profile_cache.unmatched_key AS b WHERE b.pending = ANY ($1) AND NOT EXISTS \
             (SELECT FROM pg_locks AS l WHERE l.virtualtransaction = ANY (b.holders))",
            Snapshot::New,
            &[Arg::uuids(&gone)],
            |r| r.uuid(1),
        )
    };
    // A later snapshot than the one in which the holders were found gone.
    let still: std::collections::HashSet<Uuid> = no_row().into_iter().collect();
    let done: Vec<Uuid> = waited.into_iter().flatten().filter(|id| still.contains(id)).collect();
    delete(&done);
    done.len()
}

fn delete(ids: &[Uuid]) {
    if ids.is_empty() {
        return;
    }
    pending::delete(ids);
    let _us = as_ourselves();
    spi::run(
        "DELETE FROM profile_cache.unmatched_key WHERE pending = ANY ($1)",
        &[Arg::uuids(ids)],
    );
}
