//! Documents that no reader trusts although nothing pending speaks of them: expired, failed, or found by looking.
//!
//! Invariant: one look reads a part of the table of bounded size, and the next goes on where it ended; a failure is
//! tried again after a while that grows.
//!
//! Rules: E19.

use super::batch::{LOOK, at_most, read_keys, window};
use super::course::{Course, Whole};
use super::{Done, ready};
use crate::attachment::Attached;
use crate::definition::Sql;
use crate::failures;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::Uuid;
use crate::pg::xact;
use crate::rights::{as_ourselves, as_owner};
use crate::settings;
use std::rc::Rc;

/// One step of the documents that no reader trusts although nothing pending speaks of them: what has expired, what
/// could not be computed; and a look at a part of the table, for whatever else there may be.
pub(super) fn stale(a: &Rc<Attached>, course: &mut Course, most: i32) -> Done {
    // Without either, whatever is computed now would not be trusted.
    let Some((current, first)) = a.epochs.latest().zip(a.trusted_from) else {
        return Done::default();
    };
    let a = match ready(a) {
        Ok(a) => a,
        Err(by) => return Done::held_up(by),
    };
    let size = course.size(most);
    if a.definition.expires && a.expiry_indexed && !course.none_expired {
        let found = expired(&a, course.expired, size);
        course.none_expired = found.len() < size as usize;
        if let Some(last) = found.last() {
            course.expired = Some(*last);
            course.filling = course.key.is_none();
            let keys: Vec<Uuid> = found.iter().map(|(_, key)| *key).collect();
            return Done::stored(course.by_key(&a, &keys));
        }
    }
    if !course.none_failed {
        forget_mended(&a);
        let due = failures::failures_due(size);
        course.none_failed = due.len() < size as usize;
        if !due.is_empty() {
            let stored = course.by_key(&a, &due);
            failures::postpone(&due);
            return Done::stored(stored);
        }
    }
    // Where everyone is pending, a pass looks through the table.
    if course.looked || everyone_is_pending() {
        return Done::default();
    }
    let began = xact::clock();
    let done = look_through(&a, course, first, current, most);
    course.looking += xact::clock() - began;
    // Where nothing else finds what has expired, a longer look.
    let more = a.definition.expires && !a.expiry_indexed && course.looking < settings::batch() / 2;
    course.looked |= !more && course.whole != Some(Whole::UnderWay);
    done
}

fn everyone_is_pending() -> bool {
    let _us = as_ourselves();
    let sql = "SELECT FROM profile_cache.pending_epoch AS p WHERE p.link_schema IS NULL LIMIT 1";
    spi::one(sql, Snapshot::New, &[], |_| ()).is_some()
}

/// The next documents that have expired, in that order, after the one given.
fn expired(a: &Attached, after: Option<(i64, Uuid)>, size: i32) -> Vec<(i64, Uuid)> {
    let (until, key) = after.unzip();
    let args = [Arg::timestamptz(until), Arg::uuid(key.as_ref()), Arg::int8(Some(i64::from(size)))];
    let _owner = as_owner(a.owner);
    let rows = spi::all(spi::planned_anew(&a.sql.expired()), Snapshot::New, &args, |r| {
        r.timestamptz(1).zip(r.uuid(2))
    });
    rows.into_iter().flatten().collect()
}

/// Looks through the next part of the profile table, in the order of keys, from where the last look ended.
fn look_through(a: &Attached, course: &mut Course, first: i64, current: i64, most: i32) -> Done {
    let position = if course.whole == Some(Whole::Wanted) {
        course.whole = Some(Whole::UnderWay);
        None
    } else {
        let _us = as_ourselves();
        let sql = "SELECT l.looked_to FROM profile_cache.last_refresh AS l";
        spi::one(sql, Snapshot::New, &[], |r| r.uuid(1)).flatten()
    };
    let size = most.min(LOOK);
    let args = [
        Arg::uuid(position.as_ref()),
        Arg::int8(Some(i64::from(size))),
        Arg::int8(Some(first)),
        Arg::int8(Some(current)),
    ];
    let (mut keys, next) = window(a, Sql::UNTRUSTED, &args, size);
    let failed: std::collections::HashSet<Uuid> =
        failures::failures().into_iter().map(|f| f.0).collect();
    keys.retain(|key| !failed.contains(key));
    // What it finds is computed as far as a step goes; the next look begins there.
    let (keys, next) = at_most(course.size(most), (keys, next));
    // At its end: once more from the beginning, if that was not where this call began.
    course.looked = next.is_none() && (position.is_none() || course.whole.is_some());
    if course.looked && course.whole.is_some() {
        course.whole = Some(Whole::Done);
    }
    let stored = course.by_key(a, &keys);
    let whole = course.whole == Some(Whole::UnderWay);
    course.filling = (stored > 0 || whole) && course.key.is_none();
    let _us = as_ourselves();
    spi::run("UPDATE profile_cache.last_refresh SET looked_to = $1", &[Arg::uuid(next.as_ref())]);
    Done { stored, worked: !keys.is_empty() || !course.looked, held_up: None }
}

/// Failures of profiles that have a document again, or are gone, are no longer worth remembering.
pub(super) fn forget_mended(a: &Attached) {
    let failed = failures::failures();
    if failed.is_empty() {
        return;
    }
    let (keys, times): (Vec<Uuid>, Vec<String>) = failed.into_iter().unzip();
    let args = [Arg::uuids(&keys), Arg::texts(&times)];
    let mended = read_keys(a, &a.sql.computed_since(), &args);
    failures::mended(&mended);
}
