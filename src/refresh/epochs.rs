//! Draining the pending epochs: changes that may touch many profiles.
//!
//! Invariant: an epoch is gone only after a pass over its profiles that began when nobody was left who may have
//! looked at the current epoch before this one had its number. Where it is known to concern only some, a pass goes over these.
//!
//! Rules: E2, E3, E5, E6, E7, E8, E9, E14, E15, B9.

use super::batch::{LOOK, at_most, read_keys, window};
use super::course::Course;
use super::holders::{self, RUN};
use super::{Done, ready};
use crate::attachment::Attached;
use crate::definition::{Sql, by_column};
use crate::error::{Error, check_interrupts};
use crate::pending::{self, OVER, assign};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::Uuid;
use crate::rights::as_ourselves;
use crate::xact_state;
use std::cell::RefCell;
use std::collections::VecDeque;
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
    position: Option<Uuid>,
    /// Which pass it is.
    pass: Option<Uuid>,
    /// It names no values: it concerns every profile.
    everyone: bool,
}

/// One step of draining the pending epochs, which take turns too: an edit need not wait until a pass over the
/// whole table has come to its end.
pub(super) fn epochs(a: &Rc<Attached>, course: &mut Course, most: i32) -> Done {
    note_appliers(a);
    if assign() {
        return Done::stored(0);
    }
    if xact_state::assigned() {
        // Not committed yet: nobody else can have seen it.
        return Done::default();
    }
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
            return match ready(a) {
                Ok(a) => Done::stored(pass(&a, &d, course, most)),
                Err(by) => Done::held_up(by),
            };
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
    spi::all(
        &format!(
            "SELECT d.epoch, CASE WHEN d.server_start = {RUN} THEN d.holders END, \
              d.passed_xmin IS NOT NULL, d.running, d.alive, d.position, d.pass, EXISTS (SELECT FROM profile_cache.pending_epoch AS p \
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
            everyone: r.bool(8) != Some(false),
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
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.epoch_progress SET running = true, alive = $2, position = NULL, \
         pass = gen_random_uuid(), began_xmin = pg_snapshot_xmin(pg_current_snapshot()) WHERE epoch = $1",
        &[Arg::int8(Some(epoch)), Arg::int8(Some(alive))],
    );
}

/// One step of a pass: the epoch's dependents with an older stamp, or none. What others hold locked becomes
/// pending keys. At the end of the last pass the epoch goes; at the end of another its xmin is set.
fn pass(a: &Attached, d: &EpochProgress, course: &mut Course, most: i32) -> u64 {
    let size = course.size(most);
    let position = Arg::uuid(d.position.as_ref());
    let epoch = Arg::int8(Some(d.epoch));
    let (keys, next) = match concerned(a, d.epoch) {
        // So many of the table, whatever their stamps: where few are old, a step is no longer for that.
        None => {
            let current = Arg::int8(a.epochs.latest());
            let wide = size.max(LOOK);
            let limit = Arg::int8(Some(i64::from(wide)));
            let found = window(a, Sql::OLD, &[position, limit, epoch, current], wide);
            at_most(size, found)
        }
        Some((condition, links)) => {
            let list = || {
                let mut args = vec![position, Arg::int8(Some(LISTED as i64)), epoch];
                args.extend(links.iter().map(|v| Arg::texts(v)));
                read_keys(a, spi::planned_anew(&a.sql.older(&condition)), &args)
            };
            let (keys, more) = Listed::next(d.pass, d.position, size, list);
            let next = keys.last().copied().filter(|_| more);
            (keys, next)
        }
    };
    let stored = course.by_key(a, &keys);
    let _us = as_ourselves();
    let epoch = Arg::int8(Some(d.epoch));
    match next {
        Some(last) => spi::run(
            "UPDATE profile_cache.epoch_progress SET position = $2 WHERE epoch = $1",
            &[epoch, Arg::uuid(Some(&last))],
        ),
        None if d.alive == Some(0) => {
            pending::passed(d.epoch);
            spi::run("DELETE FROM profile_cache.epoch_progress WHERE epoch = $1", &[epoch]);
            pending::advance();
            0
        }
        None => spi::run(
            "UPDATE profile_cache.epoch_progress SET running = false, position = NULL, passed_xmin = began_xmin \
             WHERE epoch = $1",
            &[epoch],
        ),
    };
    stored
}

/// The dependents of a pending epoch, which are found all together: listed once for many steps. Whom the epoch concerns is
/// decided in the snapshot that lists them; that they are locked and computed later is as it is within one step.
struct Listed {
    /// Of which pass. Two of one epoch may begin with the same xmin.
    pass: Option<Uuid>,
    /// The last key that was taken, and those that follow.
    taken: Option<Uuid>,
    left: VecDeque<Uuid>,
    /// There may be more than are listed.
    more: bool,
}

/// How many keys are listed at once.
const LISTED: usize = 100_000;

thread_local! {
    static KEPT: RefCell<Option<Listed>> = const { RefCell::new(None) };
}

impl Listed {
    /// The next keys of a pass that stands at `position`, and whether more may follow. A step that was rolled back
    /// has not moved it: then they are listed anew.
    fn next(
        pass: Option<Uuid>,
        position: Option<Uuid>,
        size: i32,
        list: impl FnOnce() -> Vec<Uuid>,
    ) -> (Vec<Uuid>, bool) {
        let kept = KEPT.take().filter(|l| {
            pass.is_some()
                && l.pass == pass
                && l.taken == position
                && position.is_some()
                && !l.left.is_empty()
        });
        let mut listed = kept.unwrap_or_else(|| {
            let left = VecDeque::from(list());
            Listed { pass, taken: position, more: left.len() == LISTED, left }
        });
        let size = listed.left.len().min(size as usize);
        let keys: Vec<Uuid> = listed.left.drain(..size).collect();
        listed.taken = keys.last().copied();
        let more = !listed.left.is_empty() || listed.more;
        KEPT.set(Some(listed).filter(|l| !l.left.is_empty()));
        (keys, more)
    }
}

/// The condition on a profile p that one of the epoch's changes concerns it, its parameters numbered
/// from 4, and their values. None where one of them concerns everyone: it has no values, or those of a table or column
/// that is no longer used.
fn concerned(a: &Attached, epoch: i64) -> Option<(String, Vec<Vec<String>>)> {
    let rows = {
        let _us = as_ourselves();
        spi::all(
            "SELECT p.link_schema::text, p.link_table::text, p.link_columns::text[], p.link_values \
             FROM profile_cache.pending_epoch AS p WHERE p.epoch = $1",
            Snapshot::New,
            &[Arg::int8(Some(epoch))],
            |r| (r.text(1), r.text(2), r.texts(3), r.texts(4)),
        )
    };
    let mut by_link: std::collections::BTreeMap<(usize, usize), Vec<Vec<String>>> =
        Default::default();
    for row in rows {
        let (Some(schema), Some(table), Some(columns), Some(values)) = row else {
            return None;
        };
        let mut known = false;
        for (t, used) in a.definition.tables.iter().enumerate() {
            if used.schema != schema || used.name != table {
                continue;
            }
            for (l, link) in used.links.iter().enumerate() {
                // A constant's link writes no such row.
                if !link.route.is_empty() && link.column_names() == columns {
                    let rows = values.chunks(columns.len().max(1)).map(<[String]>::to_vec);
                    by_link.entry((t, l)).or_default().extend(rows);
                    known = true;
                }
            }
        }
        if !known {
            return None;
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
