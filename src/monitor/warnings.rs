//! What wants attention, in words: what is so, since when, and the one command that helps.
//!
//! Invariant: says nothing that the tables and catalogs do not show, and each warning names what ends it.

use super::counts::{Counts, LastRefresh, Waiting};
use super::since;
use super::transactions::{Transaction, lockers, writers_before};
use crate::attachment::{Attached, Degraded, State};
use crate::error::Error;
use crate::pending::Anyone;
use crate::pg::spi::{self, Snapshot};
use crate::read::MOST_EPOCHS;
use crate::rights::as_ourselves;
use crate::settings;
use crate::stats;

/// What wants attention: what is so, since when, and the one command that helps.
pub(super) fn warnings(
    state: &State,
    count: Option<&Counts>,
    waiting: &Waiting,
    refreshed: &LastRefresh,
    held_up_by: &[Transaction],
) -> Vec<String> {
    let refresh = refresh_call();
    let mut warnings = disabled_reads();
    warnings.extend(of_attachment(state, count, waiting, refreshed, &refresh));
    warnings.extend(other_version());
    if matches!(state, State::None) {
        return warnings;
    }
    warnings.extend(of_failures(waiting));
    // Where nothing would be trusted, refresh does nothing, and what is said of that is enough.
    let distrusted = matches!(state, State::Ready(a) if a.degraded.is_some());
    warnings.extend(refreshed.warning(&refresh).filter(|_| !distrusted));
    for held in held_up_by {
        warnings.push(format!("refresh waits for the end of {}", held.and_how_to_end_it()));
    }
    let something = waiting.keys + waiting.epochs > 0 || count.is_none_or(|c| c.stale > 0);
    if let State::Ready(a) = state
        && something
    {
        warnings.extend(of_table_locks(a, count.is_some()));
        warnings.extend(of_row_locks(a, waiting, refreshed, held_up_by));
    }
    if let Some((why, advice)) = stats::missing() {
        warnings
            .push(format!("nothing is counted, and profile_cache.stats is null: {why}; {advice}"));
    }
    for name in disabled_event_triggers() {
        warnings.push(format!(
            "event trigger {name} is not ENABLE ALWAYS, so DDL may go unnoticed: enable it, then run \
             SELECT profile_cache.invalidate_all()"
        ));
    }
    warnings
}

/// Why reads fail, or use the view, by what is attached.
fn of_attachment(
    state: &State,
    count: Option<&Counts>,
    waiting: &Waiting,
    refreshed: &LastRefresh,
    refresh: &str,
) -> Vec<String> {
    let again = "run profile_cache.attach() again, with the same arguments";
    let mut warnings = vec![];
    match state {
        State::None => {
            warnings.push("nothing is attached: run SELECT profile_cache.attach()".into());
        }
        State::Gone(gone) => {
            let (message, hint) = gone.clone().error().message_and_hint();
            warnings.push(format!("reads fail: {message}. {hint}"));
        }
        State::Ready(a) => match &a.degraded {
            Some(Degraded::Triggers(_)) => warnings.push(format!(
                "triggers are missing or not ENABLE ALWAYS, so reads use the view: {again}"
            )),
            Some(Degraded::Problem(why)) => {
                warnings.push(format!("reads use the view: {why}; {again}"));
            }
            Some(Degraded::Unfit { why, advice }) => {
                warnings.push(format!("reads use the view: {why}; {advice}"));
            }
            None if a.epochs.current().is_none() => warnings
                .push(format!("the current epoch is lost, so reads use the view: {refresh}")),
            None => warnings.extend(all_live(count, waiting, refreshed, refresh)),
        },
    }
    warnings
}

/// The SQL objects are another version's than the library, though their tables are the same.
fn other_version() -> Option<String> {
    let ours = env!("CARGO_PKG_VERSION");
    let _us = as_ourselves();
    let sql = "SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'profile_cache'";
    let theirs = spi::one(sql, Snapshot::Active, &[], |r| r.text(1)).flatten()?;
    (theirs != ours).then(|| {
        format!(
            "the SQL objects are of version {theirs} and this session's library of {ours}: ALTER EXTENSION profile_cache \
             UPDATE, or reconnect"
        )
    })
}

fn of_failures(waiting: &Waiting) -> Option<String> {
    let least = if waiting.failures_full { "at least " } else { "" };
    (waiting.failures > 0).then(|| {
        format!(
            "the document of {least}{} profile(s) could not be computed or written{}, last with SQLSTATE {}: \
             SELECT * FROM profile_cache.failure",
            waiting.failures,
            since(waiting.failing_since),
            waiting.sqlstate.as_deref().unwrap_or("?")
        )
    })
}

/// Locks with which nothing can be computed. `counted`: the profile table is not among what they are on.
fn of_table_locks(a: &Attached, counted: bool) -> Vec<String> {
    let so = if counted {
        "changes stay pending, and refresh computes nothing"
    } else {
        "reads may wait"
    };
    let mut warnings = vec![];
    for (tables, holder) in lockers(a) {
        warnings.push(format!("{so} while {tables} is locked by {}", holder.and_how_to_end_it()));
    }
    warnings
}

/// Locks on rows. Whatever refresh could take of the pending keys it has taken: the others' rows are held.
fn of_row_locks(
    a: &Attached,
    waiting: &Waiting,
    refreshed: &LastRefresh,
    held_up_by: &[Transaction],
) -> Vec<String> {
    let mut warnings = vec![];
    if let Some(at) = waiting.oldest_key
        && refreshed.came_through_since(at)
        && held_up_by.is_empty()
    {
        for holder in writers_before(a, refreshed.completed_at) {
            warnings.push(format!(
                "profiles are pending{} that refresh has not been able to lock, which may be held by {}",
                since(Some(at)),
                holder.and_how_to_end_it()
            ));
        }
    }
    warnings
}

/// What has refresh run.
fn refresh_call() -> String {
    let _us = as_ourselves();
    let standby =
        spi::one("SELECT pg_catalog.pg_is_in_recovery()", Snapshot::Active, &[], |r| r.bool(1));
    let place = if standby.flatten() == Some(true) { " on the primary" } else { "" };
    format!("CALL profile_cache.refresh(){place}")
}

/// Why reads of many profiles, or of all, use the view although nothing else is wrong.
fn all_live(
    count: Option<&Counts>,
    waiting: &Waiting,
    refreshed: &LastRefresh,
    refresh: &str,
) -> Vec<String> {
    let mut all = vec![];
    let changed = since(waiting.oldest_epoch);
    let something = waiting.keys + waiting.epochs > 0 || count.is_some_and(|c| c.stale > 0);
    if refreshed.completed_at.is_none() && something {
        // One that has begun and ended is told of where refresh is.
        match (refreshed.began_at, refreshed.under_way) {
            (_, Some(true)) => all.push(
                "the first refresh is under way, and reads of profiles that it has not come to yet use the view: \
                 wait for it"
                    .into(),
            ),
            (None, _) => all.push(format!(
                "refresh has never come through, so reads use the view: {refresh}, and have it called every minute"
            )),
            (Some(_), _) => {}
        }
        return all;
    }
    if waiting.epochs > MOST_EPOCHS as i64 {
        all.push(format!(
            "more changes are pending{changed} than a read looks at ({} of {}), so all reads use the view: {refresh}",
            MOST_EPOCHS,
            waiting.epochs
        ));
    } else if waiting.unnumbered {
        all.push(format!(
            "a change that may concern any profile is pending{changed}, so all reads use the view: {refresh}"
        ));
    } else if waiting.unpassed && !waiting.to_all {
        all.push(format!(
            "a change is pending{changed}, and reads of the profiles to which it leads use the view: {refresh}"
        ));
    } else if waiting.unpassed {
        all.push(format!(
            "a change that may concern any profile is pending{changed}, and reads of those that refresh has not \
             come to yet use the view: {refresh}"
        ));
    }
    let keys = since(waiting.oldest_key);
    match count.and_then(|c| c.anyone) {
        Some(Anyone::Unknown) => all.push(format!(
            "keys are pending{keys} that may name any profile, so all reads use the view: {refresh}"
        )),
        Some(Anyone::TooMany) => all.push(format!(
            "too many profiles are pending{keys} to be looked at here; what `cached` counts is too low: {refresh}"
        )),
        None => {}
    }
    all
}

/// Where the setting keeps reads from the cache: in this session, or in those of some roles.
fn disabled_reads() -> Vec<String> {
    let mut found = vec![];
    if !settings::enabled() {
        found.push(
            "profile_cache.enabled is off in this session, so reads use the view: SET profile_cache.enabled = on"
                .into(),
        );
    }
    let _us = as_ourselves();
    found.extend(spi::all(
        "SELECT format('profile_cache.enabled is off for %s, whose reads use the view: ALTER %1$s RESET profile_cache.enabled', \
           concat_ws(' ', CASE WHEN r.oid IS NULL THEN 'DATABASE ' || quote_ident(current_database()) ELSE 'ROLE ' || quote_ident(r.rolname) END, \
            CASE WHEN r.oid IS NOT NULL AND s.setdatabase <> 0 THEN 'IN DATABASE ' || quote_ident(current_database()) END)) \
         FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS c(line) LEFT JOIN pg_roles AS r ON r.oid = s.setrole \
         WHERE (s.setdatabase = 0 OR s.setdatabase = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())) \
          AND c.line ~* '^profile_cache[.]enabled=(of|off|f|fa|fal|fals|false|n|no|0)$' ORDER BY 1",
        Snapshot::Active,
        &[],
        |r| r.text(1).unwrap_or_else(|| unnamed()),
    ));
    found
}

fn disabled_event_triggers() -> Vec<String> {
    let _us = as_ourselves();
    spi::all(
        "SELECT t.evtname::text FROM pg_event_trigger AS t JOIN pg_proc AS f ON f.oid = t.evtfoid \
         WHERE f.pronamespace = 'profile_cache'::regnamespace AND t.evtenabled <> 'A' ORDER BY 1",
        Snapshot::Active,
        &[],
        |r| r.text(1).unwrap_or_else(|| unnamed()),
    )
}

fn unnamed() -> ! {
    Error::Internal("a setting or an event trigger has no name".into()).raise()
}
