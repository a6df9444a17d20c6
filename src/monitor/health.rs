//! `health`: a row for each check, with how bad it is, since when, what is so, and what helps. For probes and for people.
//!
//! Invariant: all checks, always, in their order. What is wrong is told by one check: those that it keeps from being made, or that
//! would say the same, are ok and say why. Waits for nobody who uses the app's tables.

use super::facts::Facts;
use super::finding::{CHECKS, Check, Finding, Grade, NOT_LOOKED_AT, SLOW_READS};
use super::warnings::{fails, version, warnings};
use super::{replication, since, tables};
use crate::attachment::{Gone, State};
use crate::definition::{display, triggers};
use crate::iso8601::iso8601;
use crate::pg::catalog;
use crate::pg::spi::{self, Snapshot};
use crate::pg::value::Value;
use crate::rights::as_ourselves;
use crate::settings;
use crate::stats;
use crate::wakeup::{self, Worker};

/// A row of the result.
type Row = [Option<Value>; 5];

/// The rows of `profile_cache.health()`, in order.
pub fn health() -> Vec<Row> {
    let facts = Facts::gather();
    let mut found = warnings(&facts);
    let mut so = vec![];
    for (check, name) in CHECKS {
        let words = match check {
            Check::Versions => versions(&mut found),
            Check::Attachment => attachment(&facts),
            Check::Triggers => our_triggers(&facts),
            Check::Worker => worker(&mut found),
            Check::Refresh => refresh(&facts, &mut found),
            Check::Pending => pending(&facts, &mut found),
            Check::Holders => "refresh waits for nobody".into(),
            Check::Failures => "the document of each profile could be computed and written".into(),
            Check::HitRate => hit_rate(&facts, &mut found),
            Check::ProfileTable => tables::profile_table(&facts, &mut found),
            Check::Replication => replication::replication(&facts, &mut found),
        };
        so.push((check, name, words));
    }
    so.into_iter().map(|(check, name, words)| row(check, name, &words, &found)).collect()
}

/// The same where our tables are not as this library knows them, and nothing that stands in them can be told.
pub fn health_of_another_layout(gone: &Gone) -> Vec<Row> {
    let found = [fails(gone)];
    let so = "not looked at, because of what the check of the versions says";
    CHECKS.iter().map(|(check, name)| row(*check, name, so, &found)).collect()
}

/// The worst that was found for a check says how bad it is, since when, and what helps; all of it is told, the worst first.
fn row(check: Check, name: &str, so: &str, found: &[Finding]) -> Row {
    let mut found: Vec<&Finding> = found.iter().filter(|f| f.check == check).collect();
    found.sort_by_key(|f| std::cmp::Reverse(f.grade));
    let grade = found.first().map_or(Grade::Ok, |f| f.grade);
    let words: Vec<String> = found.iter().map(|f| f.detail()).collect();
    let words = if words.is_empty() { so.to_owned() } else { words.join("; ") };
    let worst = found.iter().filter(|f| f.grade == grade);
    // That nothing is counted is no trouble, and yet there is something to do about it.
    let helps = grade > Grade::Ok || check == Check::HitRate;
    let help = found.first().filter(|_| helps).map(|f| f.help.as_str());
    [
        Value::text(name),
        Value::text(grade.name()),
        worst.filter_map(|f| f.since).min().map(Value::timestamptz),
        Value::text(&words),
        help.and_then(Value::text),
    ]
}

fn versions(found: &mut Vec<Finding>) -> String {
    let ours = env!("CARGO_PKG_VERSION");
    let available = {
        let _us = as_ourselves();
        let sql = "SELECT a.default_version FROM pg_available_extensions AS a WHERE a.name = 'profile_cache'";
        spi::one(sql, Snapshot::Active, &[], |r| r.text(1)).flatten()
    };
    let installed = version().unwrap_or_default();
    // Where the library is another one than the SQL objects, that has been told.
    match available {
        None => found.push(Finding::new(
            Check::Versions,
            Grade::Warning,
            "the files of profile_cache are gone from this server, so that new sessions may not be able to load it",
            "install the package again",
        )),
        Some(other) if other != installed && installed == ours => found.push(Finding::new(
            Check::Versions,
            Grade::Warning,
            format!("the files on this server are of version {other}, and the SQL objects and this session's library of {ours}"),
            "restart the server, where it preloads the library, and run ALTER EXTENSION profile_cache UPDATE in a new session",
        )),
        Some(_) => {}
    }
    format!("the library, the SQL objects and the files on this server are of version {ours}")
}

fn attachment(facts: &Facts) -> String {
    let Some(a) = facts.attached() else { return String::new() };
    let name = |oid| catalog::relation_name(oid).map(|(s, n)| display(&s, &n));
    let (profile, document) = (name(a.profile), name(a.document));
    let (profile, document) = (profile.unwrap_or_default(), document.unwrap_or_default());
    let cached = match &facts.count {
        Some(c) if c.exact => format!("{} of {} profiles are cached", c.cached, c.rows),
        Some(c) => format!("about {} of {} profiles are cached", c.cached, c.rows),
        None => "another transaction has the table for itself".into(),
    };
    let unseen = facts.waiting.unseen_since.map(iso8601);
    let unseen = unseen.map_or_else(String::new, |at| {
        format!("; refresh has still to look at DDL of {at}, and reads use the view until then")
    });
    format!("{profile} by {document}: {cached}{unseen}")
}

fn our_triggers(facts: &Facts) -> String {
    match facts.attached() {
        Some(a) if !a.tables.is_empty() => {
            let all = a.tables.iter().map(|t| triggers(t.oid == a.profile).count());
            let (all, tables) = (all.sum::<usize>(), a.tables.len());
            format!("{all} triggers on {tables} tables and the event triggers are ENABLE ALWAYS")
        }
        _ => NOT_LOOKED_AT.into(),
    }
}

/// After how many failures in a row, with pauses between them that grow, the worker will not mend itself. Who is merely in its way is
/// no failure.
const FAILED_IN_A_ROW: u32 = 3;

fn worker(found: &mut Vec<Finding>) -> String {
    let worker = wakeup::worker();
    let words = worker.words();
    let mut bad = |what: &str, help: &str| {
        found.push(Finding::new(Check::Worker, Grade::Warning, what, help));
    };
    match worker {
        Worker::NotPreloaded if wakeup::is_listed() => bad(
            "profile_cache.databases names this database, but the server has not preloaded the library",
            "ALTER SYSTEM SET shared_preload_libraries = 'profile_cache', beside what is there, and restart the server",
        ),
        Worker::NoLauncher | Worker::NoRoom => {
            bad(&words, "ALTER SYSTEM SET max_worker_processes to more, and restart the server");
        }
        Worker::NoPlace(_) => {
            bad(
                &words,
                "take a database out of profile_cache.databases, or have cron refresh this one",
            );
        }
        _ => {}
    }
    if let Some((times, code)) = wakeup::failing()
        && times >= FAILED_IN_A_ROW
    {
        let what = format!("it has failed {times} times in a row, last with SQLSTATE {code}");
        bad(&what, "see the server's log for what it says of it, and CALL profile_cache.refresh()");
    }
    words
}

fn refresh(facts: &Facts, found: &mut Vec<Finding>) -> String {
    if facts.attached().is_none() {
        return NOT_LOOKED_AT.into();
    }
    if facts.distrusted() {
        return "nothing is refreshed while reads use the view, which another check says".into();
    }
    let last = &facts.refreshed;
    let completed = last.completed_at;
    // The worker comes when there is something to do. Whoever has none calls refresh each minute.
    let nobody = matches!(wakeup::worker(), Worker::NotPreloaded | Worker::Unlisted)
        && last.under_way != Some(true)
        && last.undone().is_none();
    if let Some(at) = completed.filter(|at| nobody && SLOW_READS.is_over(*at, facts.now)) {
        let what = format!("nobody has called refresh since {}, and no worker does", iso8601(at));
        let help = "have CALL profile_cache.refresh() called every minute, or name the database in profile_cache.databases";
        found.push(Finding::new(Check::Refresh, Grade::Warning, what, help).since(completed));
    }
    let under_way = last.began_at.filter(|_| last.under_way == Some(true));
    match (under_way, completed) {
        (Some(at), _) => format!("one is under way{}", since(Some(at))),
        (None, Some(at)) => format!("the last came through at {}", iso8601(at)),
        (None, None) => "none has come through so far".into(),
    }
}

fn pending(facts: &Facts, found: &mut Vec<Finding>) -> String {
    let State::Ready(a) = &facts.state else { return NOT_LOOKED_AT.into() };
    let waiting = &facts.waiting;
    tables::grown(facts, found);
    let so = match (waiting.epochs, waiting.keys) {
        (0, 0) => return "nothing waits for refresh".into(),
        (epochs, keys) => {
            format!("{epochs} change(s) and {keys} single profile(s) wait for refresh")
        }
    };
    if a.degraded.is_some() {
        return format!("{so}, which does nothing while reads use the view, as another check says");
    }
    if !waiting.unpassed && waiting.keys == 0 {
        return format!(
            "{so} to forget what it has followed, once those have ended who began before"
        );
    }
    let grade = facts.grade_of_keys().max(facts.grade_of_epochs());
    let oldest = waiting.oldest_key.into_iter().chain(waiting.oldest_unpassed()).min();
    let what = format!("{so}, and reads of those whom that concerns use the view");
    found.push(Finding::new(Check::Pending, grade, what, facts.refresh()).since(oldest));
    so
}

/// Of fewer reads in some minutes a share says nothing.
const FEW_READS: u64 = 1000;

fn hit_rate(facts: &Facts, found: &mut Vec<Finding>) -> String {
    if matches!(facts.state, State::None) {
        return NOT_LOOKED_AT.into();
    }
    let Some(r) = stats::recent() else {
        if !settings::track() {
            let what = "nothing is counted in this session, as profile_cache.track is off";
            let help = "SET profile_cache.track = on";
            found.push(Finding::new(Check::HitRate, Grade::Ok, what, help));
        }
        // Where there is no memory for it, that has been told.
        return "not looked at in the middle of a parallel query".into();
    };
    let reads = r.hits + r.misses;
    let so = format!("{} of {reads} reads since {} were hits", r.hits, iso8601(r.since));
    if facts.distrusted() {
        return format!("{so}, while reads use the view, as another check says");
    }
    if reads >= FEW_READS && r.hits * 2 < reads {
        let help = "SELECT miss_reasons FROM profile_cache.stats";
        found.push(Finding::new(Check::HitRate, Grade::Warning, format!("only {so}"), help));
    }
    so
}
