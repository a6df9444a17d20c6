//! What wants attention, in words: what is so, since when, and the one command that helps.
//!
//! Invariant: says nothing that the tables and catalogs do not show, and each warning names what ends it.

use super::facts::Facts;
use super::finding::{Check, Finding, Grade, SLOW_READS, WAITING};
use super::since;
use super::transactions::{Transaction, lockers, writers_before};
use crate::attachment::{Attached, Degraded, Gone, State};
use crate::error::Error;
use crate::pending::Anyone;
use crate::pg::spi::{self, Snapshot};
use crate::read::MOST_EPOCHS;
use crate::refresh;
use crate::rights::as_ourselves;
use crate::settings;
use crate::stats;
use crate::wakeup::{self, Worker};

/// What wants attention, for `status`, and for the checks of `health` that it is of.
pub(super) fn warnings(facts: &Facts) -> Vec<Finding> {
    let mut warnings = disabled_reads();
    warnings.extend(of_attachment(facts));
    warnings.extend(other_version());
    if matches!(facts.state, State::None) {
        return warnings;
    }
    warnings.extend(of_failures(facts));
    // Where nothing would be trusted, refresh does nothing, and what is said of that is enough.
    warnings.extend(of_refresh(facts).filter(|_| !facts.distrusted()));
    for held in &facts.held_up_by {
        let what = format!("refresh waits for the end of {}", held.who());
        warnings.push(in_the_way(held, what, SLOW_READS.grade(held.since, facts.now)));
    }
    if let Some(a) = facts.attached()
        && facts.undone()
    {
        warnings.extend(of_table_locks(a, facts));
        warnings.extend(of_row_locks(a, facts));
    }
    if let Some((why, advice)) = stats::missing() {
        let what = format!("nothing is counted, and profile_cache.stats is null: {why}");
        let finding = Finding::new(Check::HitRate, Grade::Ok, what, advice);
        warnings.push(finding.joined_by("; "));
    }
    if facts.attached().is_some()
        && let Err(why) = wakeup::computes()
        && !matches!(why, Worker::Standby | Worker::Behind)
        && refresh::computes_for_others()
    {
        warnings.push(Finding::new(
            Check::Worker,
            Grade::Warning,
            format!("profile_cache.compute is 'worker', and commits compute: the worker is {}", why.words()),
            "name the database in profile_cache.databases, where the server has preloaded the library, or set profile_cache.compute to 'commit'",
        ));
    }
    for name in disabled_event_triggers() {
        warnings.push(Finding::new(
            Check::Triggers,
            Grade::Critical,
            format!("event trigger {name} is not ENABLE ALWAYS, so DDL may go unnoticed"),
            "enable it, then run SELECT profile_cache.invalidate_all()",
        ));
    }
    warnings
}

fn in_the_way(who: &Transaction, what: String, grade: Grade) -> Finding {
    Finding::new(Check::Holders, grade, what, who.end.clone()).since(who.since)
}

/// Why reads fail, or use the view, by what is attached.
fn of_attachment(facts: &Facts) -> Vec<Finding> {
    let again = "run profile_cache.attach() again, with the same arguments";
    let critical =
        |what: &str, help: &str| Finding::new(Check::Attachment, Grade::Critical, what, help);
    vec![match &facts.state {
        State::None => critical("nothing is attached", "run SELECT profile_cache.attach()"),
        State::Gone(gone) => fails(gone),
        State::Ready(a) => match &a.degraded {
            Some(Degraded::Triggers(missing)) => Finding::new(
                Check::Triggers,
                Grade::Critical,
                "triggers are missing or not ENABLE ALWAYS, so reads use the view",
                again,
            )
            .which(missing),
            Some(Degraded::Problem(why)) => {
                critical(&format!("reads use the view: {why}"), again).joined_by("; ")
            }
            // It may be meant to stay so, and no answer is wrong.
            Some(Degraded::Unfit { why, advice }) => Finding::new(
                Check::Attachment,
                Grade::Warning,
                format!("reads use the view: {why}"),
                advice.clone(),
            )
            .joined_by("; "),
            // The next refresh makes another.
            None if a.epochs.current().is_none() => Finding::new(
                Check::Attachment,
                Grade::Warning,
                "the current epoch is lost, so reads use the view",
                facts.refresh(),
            ),
            None => return all_live(facts),
        },
    }]
}

/// Reads fail.
pub(super) fn fails(gone: &Gone) -> Finding {
    let check = if matches!(gone, Gone::Layout(_)) { Check::Versions } else { Check::Attachment };
    let (message, hint) = gone.clone().error().message_and_hint();
    Finding::new(check, Grade::Critical, format!("reads fail: {message}"), hint).joined_by(". ")
}

/// The version of the SQL objects.
pub(super) fn version() -> Option<String> {
    let _us = as_ourselves();
    let sql = "SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'profile_cache'";
    spi::one(sql, Snapshot::Active, &[], |r| r.text(1)).flatten()
}

/// The SQL objects are another version's than the library, though their tables are the same.
fn other_version() -> Option<Finding> {
    let ours = env!("CARGO_PKG_VERSION");
    let theirs = version()?;
    (theirs != ours).then(|| {
        Finding::new(
            Check::Versions,
            Grade::Warning,
            format!("the SQL objects are of version {theirs} and this session's library of {ours}"),
            "ALTER EXTENSION profile_cache UPDATE, or reconnect",
        )
    })
}

/// From which share of the profiles on failures are no longer those of a few users.
const MANY_FAIL: i64 = 10;

fn of_failures(facts: &Facts) -> Option<Finding> {
    let waiting = &facts.waiting;
    let least = if waiting.failures_full { "at least " } else { "" };
    let rows = facts.count.as_ref().map(|c| c.rows);
    let many = waiting.failures_full
        || rows.is_some_and(|rows| waiting.failures.saturating_mul(MANY_FAIL) >= rows);
    (waiting.failures > 0).then(|| {
        let what = format!(
            "the document of {least}{} profile(s) could not be computed or written{}, last with SQLSTATE {}",
            waiting.failures,
            since(waiting.failing_since),
            waiting.sqlstate.as_deref().unwrap_or("?")
        );
        let grade = if many { Grade::Critical } else { Grade::Warning };
        Finding::new(Check::Failures, grade, what, "SELECT * FROM profile_cache.failure")
            .since(waiting.failing_since)
    })
}

/// What the last call of refresh has not done.
fn of_refresh(facts: &Facts) -> Option<Finding> {
    let what = facts.refreshed.undone()?;
    let finding = Finding::new(Check::Refresh, facts.grade_of_refresh(), what, facts.refresh());
    Some(finding.since(facts.refreshed.began_at))
}

/// Locks with which nothing can be computed.
fn of_table_locks(a: &Attached, facts: &Facts) -> Vec<Finding> {
    // Where the rows could not be counted, the profile table is among what they are on.
    let (so, patience) = match facts.count {
        Some(_) => ("changes stay pending, and refresh computes nothing", SLOW_READS),
        None => ("reads may wait", WAITING),
    };
    let finding = |(tables, holder): (String, Transaction)| {
        let what = format!("{so} while {tables} is locked by {}", holder.who());
        in_the_way(&holder, what, patience.grade(holder.since, facts.now))
    };
    lockers(a).into_iter().map(finding).collect()
}

/// Locks on rows. Whatever refresh could take of the pending keys it has taken: the others' rows are held.
fn of_row_locks(a: &Attached, facts: &Facts) -> Vec<Finding> {
    let Some(at) = facts.waiting.oldest_key else { return vec![] };
    if !facts.refreshed.came_through_since(at) || !facts.held_up_by.is_empty() {
        return vec![];
    }
    let finding = |holder: Transaction| {
        let what = format!(
            "profiles are pending{} that refresh has not been able to lock, which may be held by {}",
            since(Some(at)),
            holder.who()
        );
        in_the_way(&holder, what, SLOW_READS.grade(Some(at), facts.now))
    };
    writers_before(a, facts.refreshed.completed_at).into_iter().map(finding).collect()
}

/// Why reads of many profiles, or of all, use the view although nothing else is wrong.
fn all_live(facts: &Facts) -> Vec<Finding> {
    let (waiting, refreshed, refresh) = (&facts.waiting, &facts.refreshed, facts.refresh());
    let counted = facts.count.as_ref();
    let mut all = vec![];
    let something = waiting.keys + waiting.epochs > 0 || counted.is_some_and(|c| c.stale > 0);
    if refreshed.completed_at.is_none() && something {
        all.extend(first_refresh(facts));
        return all;
    }
    let changed = since(waiting.oldest_epoch);
    let (what, least) = if waiting.epochs > MOST_EPOCHS as i64 {
        let (most, are) = (MOST_EPOCHS, waiting.epochs);
        let so = format!("than a read looks at ({most} of {are}), so all reads use the view");
        (format!("more changes are pending{changed} {so}"), Grade::Warning)
    } else if waiting.unnumbered {
        let so = "so all reads use the view";
        (format!("a change that may concern any profile is pending{changed}, {so}"), Grade::Ok)
    } else if waiting.unpassed && !waiting.to_all {
        let so = "and reads of the profiles to which it leads use the view";
        (format!("a change is pending{changed}, {so}"), Grade::Ok)
    } else if waiting.unpassed {
        let so = "and reads of those that refresh has not come to yet use the view";
        (format!("a change that may concern any profile is pending{changed}, {so}"), Grade::Ok)
    } else {
        (String::new(), Grade::Ok)
    };
    let pending = |grade: Grade, what: String, since| {
        Finding::new(Check::Pending, grade, what, refresh.clone()).since(since)
    };
    if !what.is_empty() {
        all.push(pending(facts.grade_of_epochs().max(least), what, waiting.oldest_unpassed()));
    }
    let keys = since(waiting.oldest_key);
    let what = match counted.and_then(|c| c.anyone) {
        Some(Anyone::Unknown) => {
            format!("keys are pending{keys} that may name any profile, so all reads use the view")
        }
        Some(Anyone::TooMany) => format!(
            "too many profiles are pending{keys} to be looked at here; what `cached` counts is too low"
        ),
        None => return all,
    };
    all.push(pending(facts.grade_of_keys(), what, waiting.oldest_key));
    all
}

/// None has come through yet. One that has begun and ended is told of where refresh is.
fn first_refresh(facts: &Facts) -> Option<Finding> {
    match (facts.refreshed.began_at, facts.refreshed.under_way) {
        (began, Some(true)) => {
            let what = "the first refresh is under way, and reads of profiles that it has not come to yet use the view";
            Some(Finding::new(Check::Refresh, Grade::Ok, what, "wait for it").since(began))
        }
        (None, _) => {
            let what = "refresh has never come through, so reads use the view";
            let help = format!("{}, and have it called every minute", facts.refresh());
            let finding = Finding::new(Check::Refresh, facts.grade_of_refresh(), what, help);
            Some(finding.since(facts.waiting.oldest()))
        }
        (Some(_), _) => None,
    }
}

/// Where the setting keeps reads from the cache: in this session, or in those of some roles.
fn disabled_reads() -> Vec<Finding> {
    let off =
        |what: String, help: String| Finding::new(Check::Attachment, Grade::Warning, what, help);
    let mut found = vec![];
    if !settings::enabled() {
        found.push(off(
            "profile_cache.enabled is off in this session, so reads use the view".into(),
            "SET profile_cache.enabled = on".into(),
        ));
    }
    let _us = as_ourselves();
    found.extend(spi::all(
        "SELECT format('profile_cache.enabled is off for %s, whose reads use the view', w.whom), \
           format('ALTER %s RESET profile_cache.enabled', w.whom) \
         FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS c(line) LEFT JOIN pg_roles AS r ON r.oid = s.setrole \
          CROSS JOIN LATERAL (SELECT concat_ws(' ', CASE WHEN r.oid IS NULL THEN 'DATABASE ' || quote_ident(current_database()) \
             ELSE 'ROLE ' || quote_ident(r.rolname) END, \
            CASE WHEN r.oid IS NOT NULL AND s.setdatabase <> 0 THEN 'IN DATABASE ' || quote_ident(current_database()) END)) AS w(whom) \
         WHERE (s.setdatabase = 0 OR s.setdatabase = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())) \
          AND c.line ~* '^profile_cache[.]enabled=(of|off|f|fa|fal|fals|false|n|no|0)$' ORDER BY 1",
        Snapshot::Active,
        &[],
        |r| match r.text(1).zip(r.text(2)) {
            Some((what, help)) => off(what, help),
            None => unnamed(),
        },
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
