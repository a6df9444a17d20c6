//! How the servers stand to each other, as far as it concerns what is served and what refresh leaves behind, for `health`.
//!
//! Invariant: asks PostgreSQL's own views; names no standby.

use super::facts::Facts;
use super::finding::{Check, Finding, Grade, SLOW_READS, WAITING};
use super::tables::keeper;
use crate::iso8601::iso8601;
use crate::pg::spi::{self, Snapshot};
use crate::rights::as_ourselves;

/// How far, in bytes, a standby may be behind what it has received without a question: a segment of the log, which is replayed in
/// a moment.
const BEHIND: i64 = 16 << 20;
/// How much of the log, in bytes, a slot may keep for nobody.
const KEPT: i64 = 1 << 30;

pub(super) fn replication(facts: &Facts, found: &mut Vec<Finding>) -> String {
    if facts.standby { standby(facts, found) } else { primary(facts, found) }
}

fn finding(grade: Grade, what: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding::new(Check::Replication, grade, what, help)
}

/// What a standby knows of how far it is.
struct Standby {
    /// None where nothing is streamed.
    behind: Option<i64>,
    replayed_at: Option<i64>,
    paused: bool,
    streams: bool,
    /// It has a primary to stream from.
    follows: bool,
    feedback: bool,
}

fn standby(facts: &Facts, found: &mut Vec<Finding>) -> String {
    let row = {
        let _us = as_ourselves();
        spi::one(
            "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::int8, pg_last_xact_replay_timestamp(), \
              CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END, EXISTS (SELECT FROM pg_stat_get_wal_receiver() AS r WHERE r.pid IS NOT NULL), \
              EXISTS (SELECT FROM pg_settings AS s WHERE s.name = 'primary_conninfo' AND s.setting <> ''), \
              current_setting('hot_standby_feedback')::bool",
            Snapshot::Active,
            &[],
            |r| Standby {
                behind: r.int8(1),
                replayed_at: r.timestamptz(2),
                paused: r.bool(3) == Some(true),
                streams: r.bool(4) == Some(true),
                follows: r.bool(5) == Some(true),
                feedback: r.bool(6) == Some(true),
            },
        )
    };
    let Some(s) = row else { return "it has just been promoted".into() };
    if s.paused {
        let what =
            "replay is paused on this standby, and documents are as old as what it has replayed";
        found.push(finding(Grade::Warning, what, "SELECT pg_wal_replay_resume()"));
    }
    if s.follows && !s.streams {
        let what = "this standby receives nothing from its primary, and documents are as old as what it has replayed";
        let help = "see its log for why: https://www.postgresql.org/docs/current/warm-standby.html";
        found.push(finding(Grade::Warning, what, help).since(None));
    }
    let behind = s.behind.map_or(0, |bytes| bytes.max(0));
    let last = s.replayed_at.map_or_else(String::new, |at| {
        format!("; the last transaction that it has replayed is of {}", iso8601(at))
    });
    if behind >= BEHIND {
        let grade = SLOW_READS.grade(s.replayed_at, facts.now);
        let what = format!("this standby is {behind} bytes behind what it has received{last}");
        let (what, help) = match keeper(facts) {
            Some(keeper) => (format!("{what}; it may wait for {}", keeper.who()), keeper.end),
            None => (what, "look for what its disks and its startup process do".into()),
        };
        found.push(finding(grade, what, help).since(s.replayed_at));
    }
    let feedback = if s.feedback { "on" } else { "off" };
    format!(
        "a standby, {behind} bytes behind what it has received, hot_standby_feedback {feedback}"
    )
}

/// What a primary knows of those that follow it.
struct Primary {
    names: String,
    synchronous: i64,
    streaming: i64,
    waiting: i64,
    waiting_since: Option<i64>,
}

fn primary(facts: &Facts, found: &mut Vec<Finding>) -> String {
    let row = {
        let _us = as_ourselves();
        spi::one(
            "SELECT current_setting('synchronous_standby_names'), w.*, s.* FROM \
              (SELECT count(*) FILTER (WHERE w.sync_state IN ('sync', 'quorum')), count(*) FROM pg_stat_get_wal_senders() AS w \
                WHERE w.state = 'streaming') AS w(synchronous, streaming), \
              (SELECT count(*), min(a.query_start) FROM pg_stat_get_activity(NULL) AS a WHERE a.wait_event = 'SyncRep') AS s(waiting, since)",
            Snapshot::Active,
            &[],
            |r| {
                Some(Primary {
                    names: r.text(1)?,
                    synchronous: r.int8(2)?,
                    streaming: r.int8(3)?,
                    waiting: r.int8(4)?,
                    waiting_since: r.timestamptz(5),
                })
            },
        )
    };
    let Some(p) = row.flatten() else { return String::new() };
    if p.synchronous < wanted(&p.names) {
        // Who commits with synchronous_commit = off or local does not wait, and nor does the worker.
        let since = p.waiting_since.filter(|_| p.waiting > 0);
        let grade = since
            .map_or(Grade::Warning, |at| WAITING.grade(Some(at), facts.now).max(Grade::Warning));
        let what = format!(
            "{} of {} synchronous standbys are there, and commits wait for the others: {} do now",
            p.synchronous,
            wanted(&p.names),
            p.waiting
        );
        let help = "start the standby, or ALTER SYSTEM SET synchronous_standby_names to those that are there";
        found.push(finding(grade, what, help).since(since));
    }
    slots(found);
    format!("a primary of {} standby(s)", p.streaming)
}

/// Of how many standbys a commit wants to hear: `synchronous_standby_names` begins with that, where it is not one of a list.
fn wanted(names: &str) -> i64 {
    let names = names.trim();
    if names.is_empty() {
        return 0;
    }
    let Some((before, _)) = names.split_once('(') else { return 1 };
    let number = before.split_whitespace().last();
    number.and_then(|n| n.trim().parse().ok()).unwrap_or(1)
}

/// Slots of which nobody makes use, and that keep the log, or dead rows of our tables as of all others.
fn slots(found: &mut Vec<Finding>) {
    let _us = as_ourselves();
    let slots = spi::all(
        "SELECT s.slot_name::text, coalesce(s.wal_status = 'lost', false), \
          coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::int8, s.xmin IS NOT NULL, \
          (to_jsonb(s) ->> 'inactive_since')::timestamptz, quote_literal(s.slot_name) \
         FROM pg_replication_slots AS s WHERE NOT s.active ORDER BY 1",
        Snapshot::Active,
        &[],
        |r| (r.text(1), r.bool(2), r.int8(3), r.bool(4), r.timestamptz(5), r.text(6)),
    );
    for (name, lost, kept, rows, since, quoted) in slots {
        let (name, kept) = (name.unwrap_or_default(), kept.unwrap_or(0));
        let so = if lost == Some(true) {
            "has lost what its reader needs".into()
        } else if rows == Some(true) {
            format!("keeps dead rows and {kept} bytes of the log for a reader who is not there")
        } else if kept >= KEPT {
            format!("keeps {kept} bytes of the log for a reader who is not there")
        } else {
            continue;
        };
        let help = format!(
            "start its reader, or SELECT pg_drop_replication_slot({})",
            quoted.unwrap_or_default()
        );
        found.push(
            finding(Grade::Warning, format!("replication slot {name} {so}"), help).since(since),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn the_names_say_how_many_are_wanted() {
        for (names, number) in [
            ("", 0),
            ("  ", 0),
            ("a", 1),
            ("a, b", 1),
            ("*", 1),
            ("2 (a, b, c)", 2),
            ("FIRST 3 (a, b, c)", 3),
            ("any 2(*)", 2),
            ("\"2 (x\"", 1),
        ] {
            assert_eq!(wanted(names), number, "{names}");
        }
    }
}
