//! Draining the pending epochs: changes that may touch many profiles.
//!
//! Invariant: an epoch is gone only after a pass over its profiles that began when nobody was left who may have
//! looked at the current epoch before this one had its number. Where it is known to concern only some, a pass goes over these.
//! A pass is complete when all its profiles have been listed into claims, and none of these is left.
//!
//! Rules: E2, E3, E5, E6, E7, E8, E9, E14, E15, E21, B9.

use super::batch::{LOOK, at_most, read_keys, window};
use super::course::Course;
use super::holders::{self, RUN};
use super::{Done, claims, ready, ready_at_once};
use crate::attachment::Attached;
use crate::definition::{Sql, by_column};
use crate::error::{Error, check_interrupts};
use crate::pending::{self, OVER, assign};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::Uuid;
use crate::pg::xact;
use crate::rights::{as_ourselves, as_owner};
use crate::settings;
use crate::xact_state;
use std::rc::Rc;

/// One pending epoch on its way: assigned, holders noted, passes, gone.
struct EpochProgress {
    epoch: i64,
    /// None until noted under this run of the server.
    holders: Option<Vec<String>>,
    /// A complete pass has been made; readers know up to which xmin.
    complete: bool,
    running: bool,
    /// How many of the noted holders were there when the last pass began, where that is known.
    alive: Option<i64>,
    /// The last key that a pass without claims has done.
    position: Option<Uuid>,
    /// Which pass it is.
    pass: Option<Uuid>,
    /// The pass whose profiles have been listed into claims, and up to which key: all of them, where there is none.
    listed: Option<Uuid>,
    listed_to: Option<Uuid>,
    /// It names no values: it concerns every profile.
    everyone: bool,
}

/// One step of draining the pending epochs, which take turns too: an edit need not wait until a pass over the
/// whole table has come to its end.
pub(super) fn epochs(a: &Rc<Attached>, course: &mut Course, most: i32) -> Done {
    note_appliers(a);
    if !is_crowded() && assign() {
        return Done::stored(0);
    }
    if xact_state::assigned() {
        // Not committed yet: nobody else can have seen it.
        return Done::default();
    }
    course.in_hand = false;
    let mut all = drains();
    let later = all.iter().take_while(|d| d.epoch <= course.epoch).count();
    all.rotate_left(later);
    let alone = all.len() == 1;
    for d in all {
        check_interrupts();
        course.epoch = d.epoch;
        let Some(noted) = &d.holders else {
            note_holders(a, d.epoch);
            return Done::stored(0);
        };
        if d.running {
            course.filling = d.everyone && alone && course.key.is_none();
            let now = match ready(a) {
                Ok(now) => now,
                Err(by) => return Done::held_up(by),
            };
            match pass(&now, &d, course, most) {
                Some(stored) => return Done::stored(stored),
                // Others have the rest of it in hand.
                None => course.in_hand = true,
            }
            continue;
        }
        let alive = holders::alive(noted);
        if !d.complete || alive == 0 {
            begin_pass(d.epoch, alive);
            return Done::stored(0);
        }
        // Row versions that have come since the last pass are read live for this epoch. Another pass ends
        // that, for those of the noted holders that are gone, and for those whom it does not concern.
        let fewer = d.alive.is_none_or(|before| alive < before);
        if (fewer || !d.everyone) && !course.again.contains(&d.epoch) {
            course.again.push(d.epoch);
            begin_pass(d.epoch, alive);
            return Done::stored(0);
        }
    }
    Done::default()
}

/// Whether enough changes with values are under way, and nothing else waits for a number: those that come meanwhile get theirs
/// together, and are followed in one pass. With a number each, in a stream of edits, none would come to its end.
fn is_crowded() -> bool {
    let _us = as_ourselves();
    spi::one(
        "SELECT FROM (SELECT FROM profile_cache.epoch_progress AS d WHERE d.passed_xmin IS NULL AND EXISTS \
           (SELECT FROM profile_cache.pending_epoch AS p WHERE p.epoch = d.epoch AND p.link_schema IS NOT NULL) LIMIT 2) AS under_way \
         WHERE NOT EXISTS (SELECT FROM profile_cache.pending_epoch AS p WHERE p.epoch IS NULL AND p.link_schema IS NULL) HAVING count(*) = 2",
        Snapshot::New,
        &[],
        |_| (),
    )
    .is_some()
}

/// Where a table may no longer be a target of logical replication, or our own tables have been out of sight: notes who
/// may have something under way of which nothing speaks, at first sight.
fn note_appliers(a: &Attached) {
    let new = format!("p.apply AND p.epoch IS NULL AND {OVER}");
    let kinds = {
        let _us = as_ourselves();
        let sql = format!(
            "SELECT DISTINCT p.redefined FROM profile_cache.pending_epoch AS p WHERE {new}"
        );
        spi::all(&sql, Snapshot::New, &[], |r| r.bool(1) != Some(false))
    };
    for redefined in kinds {
        let tables = a.used();
        let holders = if redefined {
            holders::appliers_and_writers(&tables)
        } else {
            holders::appliers(&tables)
        };
        let _us = as_ourselves();
        spi::run(
            &format!(
                "INSERT INTO profile_cache.unmatched_key (pending, holders, server_start) \
                 SELECT p.id, $1, {RUN} FROM profile_cache.pending_epoch AS p WHERE {new} AND p.redefined = $2 \
                 ON CONFLICT (pending) DO UPDATE SET holders = excluded.holders, server_start = excluded.server_start \
                 WHERE unmatched_key.server_start <> excluded.server_start"
            ),
            &[Arg::texts(&holders), Arg::bool(redefined)],
        );
    }
}

/// The pending epochs with a number, oldest first; those that a restored dump brought without their
/// progress get theirs.
fn drains() -> Vec<EpochProgress> {
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.epoch_progress (epoch) SELECT DISTINCT p.epoch FROM profile_cache.pending_epoch AS p \
         WHERE p.epoch IS NOT NULL \
          AND NOT EXISTS (SELECT FROM profile_cache.epoch_progress AS d WHERE d.epoch = p.epoch)",
        &[],
    );
    let listed = if claims::there() { "d.listed, d.listed_to" } else { "NULL::uuid, NULL::uuid" };
    spi::all(
        &format!(
            "SELECT d.epoch, CASE WHEN d.server_start = {RUN} THEN d.holders END, \
              d.passed_xmin IS NOT NULL, d.running, d.alive, d.position, d.pass, {listed}, EXISTS (SELECT FROM profile_cache.pending_epoch AS p \
               WHERE p.epoch = d.epoch AND p.link_schema IS NULL) FROM profile_cache.epoch_progress AS d ORDER BY 1"
        ),
        Snapshot::New,
        &[],
        |r| EpochProgress {
            epoch: r.int8(1).unwrap_or_else(|| Error::Internal("an epoch of none".into()).raise()),
            holders: r.texts(2),
            complete: r.bool(3) == Some(true),
            running: r.bool(4) == Some(true),
            alive: r.int8(5),
            position: r.uuid(6),
            pass: r.uuid(7),
            listed: r.uuid(8),
            listed_to: r.uuid(9),
            everyone: r.bool(10) != Some(false),
        },
    )
}

/// Notes who may have looked at the current epoch before the assignment was committed. Under a new
/// run of the server only prepared transactions are left of those noted before: note again, and do
/// not call a pass that was under way the last one.
fn note_holders(a: &Attached, epoch: i64) {
    let holders = holders::holders(a.profile);
    let _us = as_ourselves();
    spi::run(
        &format!(
            "UPDATE profile_cache.epoch_progress SET holders = $2, server_start = {RUN}, alive = NULL \
             WHERE epoch = $1"
        ),
        &[Arg::int8(Some(epoch)), Arg::texts(&holders)],
    );
}

/// A pass begins: from the first key, remembering this snapshot's xmin, and how many of the noted holders are there.
fn begin_pass(epoch: i64, alive: i64) {
    {
        let _us = as_ourselves();
        spi::run(
            "UPDATE profile_cache.epoch_progress SET running = true, alive = $2, position = NULL, \
             pass = gen_random_uuid(), began_xmin = pg_snapshot_xmin(pg_current_snapshot()) WHERE epoch = $1",
            &[Arg::int8(Some(epoch)), Arg::int8(Some(alive))],
        );
    }
    if claims::there() {
        claims::forget_strays();
    }
}

/// One step of a pass: lists the next of its profiles into claims, and takes some of these, as any session may. None where
/// all that is left of it is in the hands of others.
fn pass(a: &Attached, d: &EpochProgress, course: &mut Course, most: i32) -> Option<u64> {
    let Some(pass) = d.pass.filter(|_| claims::there()) else {
        return Some(alone(a, d, course, most));
    };
    let mut all = d.listed == Some(pass) && d.listed_to.is_none();
    // From half of what is kept ahead, so that each listing is worth its commit.
    let lists = !all && claims::count(&pass, course.from(&pass).as_ref()) <= claims::AHEAD / 2;
    if lists {
        let added;
        (added, all) = list(a, d, &pass);
        // Others may take them when this has been committed. One alone is no use to them.
        if added > 1 {
            course.shared = true;
            return Some(0);
        }
    } else {
        // More than one claim was there, or there is more to be listed.
        course.shared = true;
    }
    let stored = take(a, &pass, course, most);
    if !all {
        if stored.is_none() && !lists {
            // What is listed is in the hands of others.
            list(a, d, &pass);
        }
        return Some(stored.unwrap_or(0));
    }
    if !claims::any(&pass, course.from(&pass).as_ref()) {
        complete(d);
        return Some(stored.unwrap_or(0));
    }
    stored
}

/// Computes some of a pass's claims; None where nobody but others has any. Their profiles are those with an older stamp, or
/// none, as it was when they were listed; what others hold locked becomes pending keys.
fn take(a: &Attached, pass: &Uuid, course: &mut Course, most: i32) -> Option<u64> {
    let size = course.size(most);
    let from = course.from(pass);
    let mut keys = claims::take(pass, from.as_ref(), size);
    if keys.is_empty() && from.is_some() {
        // Some before that may be there again.
        keys = claims::take(pass, None, size);
    }
    course.claimed = keys.first().map(|first| (*pass, *first));
    (!keys.is_empty()).then(|| course.by_key(a, &keys))
}

/// A step of whoever has not the refresh's turn: of the passes that have claims, each in its turn. None where there are none
/// but in the hands of others, or a table is locked.
pub(super) fn help(a: &Attached, course: &mut Course, most: i32) -> Option<u64> {
    let mut passes = claims::passes();
    passes.retain(|(_, pass, _)| claims::any(pass, course.from(pass).as_ref()));
    let alone = passes.len() == 1;
    if passes.is_empty() {
        return None;
    }
    let a = ready_at_once(a)?;
    let later = passes.iter().take_while(|(epoch, ..)| *epoch <= course.epoch).count();
    passes.rotate_left(later);
    for (epoch, pass, everyone) in passes {
        course.epoch = epoch;
        course.filling = everyone && alone;
        let stored = take(&a, &pass, course, most);
        if stored.is_some() {
            return stored;
        }
    }
    None
}

/// Lists profiles of a pass into claims: where it concerns only some all of them, else as many of the table as are to be
/// kept ahead. How many claims that has made, and whether no profile is left to be listed.
fn list(a: &Attached, d: &EpochProgress, pass: &Uuid) -> (usize, bool) {
    let mut added = 0;
    let mut from = d.listed_to.filter(|_| d.listed == Some(*pass));
    // What has been begun by windows goes on so: claims of what lies before are still there.
    match concerned(a, d.epoch).filter(|_| from.is_none()) {
        None => {
            let began = xact::clock();
            loop {
                let (keys, next) = old(a, d.epoch, from, LOOK);
                added += claims::add(pass, &keys);
                from = next;
                let enough =
                    added as i64 >= claims::AHEAD || xact::clock() - began >= settings::batch();
                if from.is_none() || enough {
                    break;
                }
            }
        }
        // Found all together, in one snapshot: to go on behind a key would take as long as to find them all.
        Some(concerned) => {
            const PART: usize = 100 * claims::SIZE;
            let args = dependents_args(None, None, d.epoch, &concerned.1);
            let sql = a.sql.older(&concerned.0);
            let _owner = as_owner(a.owner);
            spi::in_parts(
                spi::planned_anew(&sql),
                &args,
                PART,
                |r| r.uuid(1),
                |keys| {
                    let keys: Vec<Uuid> = keys.into_iter().flatten().collect();
                    added += claims::add(pass, &keys);
                },
            );
            from = None;
        }
    }
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.epoch_progress SET listed = $2, listed_to = $3 WHERE epoch = $1",
        &[Arg::int8(Some(d.epoch)), Arg::uuid(Some(pass)), Arg::uuid(from.as_ref())],
    );
    (added, from.is_none())
}

/// Looks at so many of the table, whatever their stamps: where few are old, a step is no longer for that. The keys of those
/// that are, and the last that was looked at where more may follow.
fn old(a: &Attached, epoch: i64, from: Option<Uuid>, wide: i32) -> (Vec<Uuid>, Option<Uuid>) {
    let args = [
        Arg::uuid(from.as_ref()),
        Arg::int8(Some(i64::from(wide))),
        Arg::int8(Some(epoch)),
        Arg::int8(a.epochs.latest()),
    ];
    window(a, Sql::OLD, &args, wide)
}

fn dependents_args(
    from: Option<Uuid>,
    most: Option<i32>,
    epoch: i64,
    links: &[Vec<String>],
) -> Vec<Arg> {
    let mut args =
        vec![Arg::uuid(from.as_ref()), Arg::int8(most.map(i64::from)), Arg::int8(Some(epoch))];
    args.extend(links.iter().map(|v| Arg::texts(v)));
    args
}

/// One step of a pass by this session alone, behind what it has done already.
fn alone(a: &Attached, d: &EpochProgress, course: &mut Course, most: i32) -> u64 {
    let size = course.size(most);
    let (keys, next) = match concerned(a, d.epoch) {
        None => at_most(size, old(a, d.epoch, d.position, size.max(LOOK))),
        Some((condition, links)) => {
            let args = dependents_args(d.position, Some(size), d.epoch, &links);
            let keys = read_keys(a, spi::planned_anew(&a.sql.older(&condition)), &args);
            let next = keys.last().copied().filter(|_| keys.len() == size as usize);
            (keys, next)
        }
    };
    let stored = course.by_key(a, &keys);
    match next {
        Some(last) => {
            let _us = as_ourselves();
            spi::run(
                "UPDATE profile_cache.epoch_progress SET position = $2 WHERE epoch = $1",
                &[Arg::int8(Some(d.epoch)), Arg::uuid(Some(&last))],
            );
        }
        None => complete(d),
    }
    stored
}

/// A pass is complete. At the end of the last one the epoch goes; at the end of another its xmin is set.
fn complete(d: &EpochProgress) {
    let _us = as_ourselves();
    let epoch = || Arg::int8(Some(d.epoch));
    if d.alive == Some(0) {
        pending::passed(d.epoch);
        spi::run("DELETE FROM profile_cache.epoch_progress WHERE epoch = $1", &[epoch()]);
        pending::advance();
    } else {
        spi::run(
            "UPDATE profile_cache.epoch_progress SET running = false, position = NULL, passed_xmin = began_xmin \
             WHERE epoch = $1",
            &[epoch()],
        );
    }
}

/// The condition on a profile p that one of the epoch's changes concerns it, its parameters numbered
/// from 4, and their values. None where one of them concerns everyone: it has no values, or in the words of
/// another definition, where table and column may mean something else.
fn concerned(a: &Attached, epoch: i64) -> Option<(String, Vec<Vec<String>>)> {
    let rows = {
        let _us = as_ourselves();
        spi::all(
            // By to_jsonb, since the SQL objects of 0.1.0 have no such column.
            "SELECT p.link_schema::text, p.link_table::text, p.link_columns::text[], p.link_values, \
              (to_jsonb(p) ->> 'definition')::int8 FROM profile_cache.pending_epoch AS p WHERE p.epoch = $1",
            Snapshot::New,
            &[Arg::int8(Some(epoch))],
            |r| {
                (
                    r.text(1),
                    r.text(2),
                    r.texts(3),
                    r.texts(4).filter(|_| r.int8(5) == Some(a.words)),
                )
            },
        )
    };
    let mut by_link: std::collections::BTreeMap<(usize, usize), Vec<Vec<String>>> =
        Default::default();
    for row in rows {
        let (Some(schema), Some(table), Some(columns), Some(values)) = row else {
            return None;
        };
        let links = a.definition.links_by(&schema, &table, &columns);
        if links.is_empty() {
            return None;
        }
        for link in links {
            let rows = values.chunks(columns.len().max(1)).map(<[String]>::to_vec);
            by_link.entry(link).or_default().extend(rows);
        }
    }
    let (mut conditions, mut args) = (vec![], vec![]);
    for ((t, l), values) in by_link {
        let link = &a.definition.tables[t].links[l];
        conditions.push(a.sql.dependents(link, 4 + args.len()));
        args.extend(by_column(link.columns.len(), &values));
    }
    Some((conditions.join(" OR "), args))
}
