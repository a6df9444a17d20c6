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
//!
//! - here: the event, from its first look to what is done about it
//! - `effects`: what a command is about, and what it may do to that
//! - `reached`: the table of all that DDL may be about
//! - `rediscover`: what the document depends on now
//! - `unseen`: DDL that nobody could look at, for refresh and attach
//!
//! Rules: D1, D2, D4, D7.

mod effects;
mod reached;
mod rediscover;
mod unseen;

pub use reached::hold_row_types;
pub use unseen::{Looked, look_again, settle};

use crate::attachment::{self, Recorded};
use crate::error::{Error, warning};
use crate::pending;
use crate::pg::ddl::{self, Told};
use crate::pg::fmgr::{Call, Return};
use crate::pg::{catalog, locks, xact};
use crate::rights::{as_ourselves, home};
use effects::{APART, Effect, HARMLESS, REPLACING, subjects_of};
use pgrx::pg_sys;
use reached::{Object, changes_of_reached, here, reached, write_reached};
use rediscover::{find, follows_as_before, is_as_before, keep, rediscover};

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
        match attachment::other_layout() {
            None => subscription(),
            Some(_) => pending::redefined("DDL"),
        }
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
    if attachment::other_layout().is_some() {
        pending::redefined("DDL");
        return Return::Null;
    }
    let ours = |t: &Told| match t.class {
        pg_sys::NamespaceRelationId => Some(t.object) == catalog::schema(home),
        pg_sys::RelationRelationId => t.object == home,
        _ => false,
    };
    if told.iter().any(ours) {
        pending::out_of_sight("DDL on our own schema or table");
    }
    // attach waits for DDL that is under way, so that neither can miss the other. Where it is attach that
    // came first, it may not see this.
    if !APART.contains(&tag.as_str()) && !locks::try_lock_for_writing(home) {
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
        concern(effect, replaced);
    }
    Return::Null
}

/// Whether the tables are a target of logical replication may have changed, and its apply fires no
/// statement triggers.
fn subscription() {
    if let Some(recorded) = attachment::recorded() {
        pending::applied("DDL on a subscription");
        attachment::relation_changed(recorded.profile);
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

/// DDL on what the document depends on.
fn concern(effect: Effect, replaced: bool) {
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
        // Before it is proven: what is new in it must not change afterwards.
        let changes = changes_of_reached(&recorded);
        if changes.as_ref().is_some_and(|changes| !changes.keep_ddl_out()) {
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
        }
        changes.iter().for_each(reached::write);
        true
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
