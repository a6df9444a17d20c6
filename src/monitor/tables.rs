//! What VACUUM and HOT make of the profile table and of our own, for `health`.
//!
//! Invariant: asks PostgreSQL's counters and the sizes of files; reads no row, and opens no table that another transaction may
//! have for itself.

use super::facts::Facts;
use super::finding::{Check, Finding, Grade, NOT_LOOKED_AT, SLOW_READS};
use super::transactions::Transaction;
use crate::attachment::Attached;
use crate::definition::{FILLFACTOR, fillfactor};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::rights::as_ourselves;

/// With fewer updates or dead rows than this, shares say nothing.
const FEW: i64 = 1000;
/// How large one of our tables may become, in bytes, without a question. Reads look into some of them.
const LARGE: i64 = 64 << 20;
/// How many bytes a row of theirs may take: twenty times what most do.
const ROOM: i64 = 5000;

/// What PostgreSQL counts of the profile table, and how it is vacuumed.
struct Counted {
    name: String,
    updates: i64,
    hot: i64,
    rows: i64,
    dead: i64,
    fillfactor: i64,
    /// Whether it is vacuumed by itself: the table, what is stored out of line, any table.
    vacuumed: [bool; 3],
    counting: bool,
    being_vacuumed: bool,
    vacuumed_at: Option<i64>,
}

fn counted(a: &Attached) -> Option<Counted> {
    let _us = as_ourselves();
    // After a reset of the counters there are as many rows as at the last VACUUM or ANALYZE.
    spi::one(
        "SELECT pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_hot_updated(c.oid), \
          GREATEST(pg_stat_get_live_tuples(c.oid), c.reltuples::int8), pg_stat_get_dead_tuples(c.oid), \
          (SELECT o.option_value FROM pg_options_to_table(c.reloptions) AS o WHERE o.option_name = 'fillfactor'), \
          coalesce((SELECT o.option_value::bool FROM pg_options_to_table(c.reloptions) AS o WHERE o.option_name = 'autovacuum_enabled'), true), \
          coalesce((SELECT o.option_value::bool FROM pg_class AS t, pg_options_to_table(t.reloptions) AS o \
           WHERE t.oid = c.reltoastrelid AND o.option_name = 'autovacuum_enabled'), true), \
          current_setting('autovacuum')::bool, current_setting('track_counts')::bool, \
          EXISTS (SELECT FROM pg_stat_get_progress_info('VACUUM') AS v WHERE v.relid = c.oid), c.oid::regclass::text, \
          GREATEST(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)) \
         FROM pg_class AS c WHERE c.oid = $1",
        Snapshot::Active,
        &[Arg::oid(a.profile)],
        |r| {
            Some(Counted {
                name: r.text(11)?,
                updates: r.int8(1)?,
                hot: r.int8(2)?,
                rows: r.int8(3)?,
                dead: r.int8(4)?,
                fillfactor: fillfactor(r.text(5).as_deref()),
                vacuumed: [r.bool(6)?, r.bool(7)?, r.bool(8)?],
                counting: r.bool(9)?,
                being_vacuumed: r.bool(10)?,
                vacuumed_at: r.timestamptz(12),
            })
        },
    )
    .flatten()
}

impl Counted {
    /// The percentage of updates that were HOT, where that is too small. The first filling writes each row into a page
    /// that has no room for it: as many updates as there are rows are no bad sign.
    fn hot_too_rare(&self) -> Option<i64> {
        let filling = self.rows.min(self.updates - self.hot);
        let updates = self.updates - filling;
        let other = updates - self.hot;
        (updates >= FEW && other * 2 > updates).then(|| 100 * self.hot / updates)
    }

    /// Autovacuum comes, as PostgreSQL is set up, for a fifth.
    fn many_dead(&self) -> bool {
        self.dead >= FEW && self.dead * 2 > self.rows && !self.being_vacuumed
    }

    /// Nobody has come for them. A filling leaves as many at once as there are rows, and autovacuum looks each minute: of a
    /// table that it has never come to they are those of more than two.
    fn left_alone(&self, now: i64) -> bool {
        let never = self.dead > 2 * self.rows;
        self.vacuumed_at.map_or(never, |at| SLOW_READS.is_over(at, now))
    }
}

/// How the profile table is kept.
pub(super) fn profile_table(facts: &Facts, found: &mut Vec<Finding>) -> String {
    let Some(c) = facts.attached().and_then(counted) else {
        return NOT_LOOKED_AT.into();
    };
    let name = &c.name;
    let mut warn = |what: String, help: String| {
        found.push(Finding::new(Check::ProfileTable, Grade::Warning, what, help));
    };
    let reset = |what: &str| format!("ALTER TABLE {name} RESET ({what})");
    let kept = [
        (format!("of {name}"), reset("autovacuum_enabled")),
        (format!("of what {name} stores out of line"), reset("toast.autovacuum_enabled")),
        ("of all tables".into(), "ALTER SYSTEM SET autovacuum = on".into()),
    ];
    for ((of, help), _) in kept.into_iter().zip(c.vacuumed).filter(|(_, on)| !on) {
        warn(format!("autovacuum {of} is off, and each refresh leaves dead rows"), help);
    }
    if facts.standby {
        return "what is updated and dead is counted on the primary".into();
    }
    if !c.counting {
        return "what is updated and dead is not counted, as track_counts is off".into();
    }
    if c.many_dead() {
        let what = format!("{} rows of {name} are dead beside {}", c.dead, c.rows);
        match keeper(facts) {
            Some(k) => warn(format!("{what}, and may be kept by {}", k.who()), k.end),
            None if c.left_alone(facts.now) => warn(what, format!("VACUUM {name}")),
            None => {}
        }
    }
    if let Some(percent) = c.hot_too_rare() {
        let what = format!(
            "only {percent} % of the updates of {name} were HOT, so that it grows with each of the others; its fillfactor is {}",
            c.fillfactor
        );
        let help = if c.fillfactor > FILLFACTOR {
            format!("ALTER TABLE {name} SET (fillfactor = {FILLFACTOR})")
        } else {
            "look for an index on a column that changes often, and set a lower fillfactor".into()
        };
        warn(what, help);
    }
    let (hot, all) = (c.hot, c.updates);
    format!(
        "{hot} of {all} updates were HOT, {} rows are dead beside {}; fillfactor {}",
        c.dead, c.rows, c.fillfactor
    )
}

/// Those of our tables that have grown beyond what is in them: reads and refresh look through what is left of what is over.
pub(super) fn grown(facts: &Facts, found: &mut Vec<Finding>) {
    let rows = [
        ("pending_key", facts.waiting.keys),
        ("pending_epoch", facts.waiting.epochs),
        ("epoch", 1),
        ("horizon", 1),
    ];
    let bytes = {
        let _us = as_ourselves();
        let names = rows.map(|(name, _)| format!("profile_cache.{name}"));
        spi::all(
            "SELECT coalesce(pg_relation_size(t.name::regclass), 0), pg_size_pretty(pg_relation_size(t.name::regclass)) \
             FROM unnest($1) WITH ORDINALITY AS t(name, n) ORDER BY t.n",
            Snapshot::Active,
            &[Arg::texts(&names)],
            |r| (r.int8(1).unwrap_or(0), r.text(2).unwrap_or_default()),
        )
    };
    for ((name, rows), (bytes, words)) in rows.into_iter().zip(bytes) {
        if bytes < LARGE || bytes / ROOM < rows {
            continue;
        }
        let what = format!("profile_cache.{name} has grown to {words} for {rows} row(s)");
        let (what, help) = match keeper(facts) {
            Some(keeper) => (format!("{what}, which may be kept by {}", keeper.who()), keeper.end),
            None => (what, format!("VACUUM (TRUNCATE) profile_cache.{name}")),
        };
        found.push(Finding::new(Check::Pending, Grade::Warning, what, help));
    }
}

/// Whose snapshot keeps dead rows from being removed, where that is an old one.
pub(super) fn keeper(facts: &Facts) -> Option<Transaction> {
    let _us = as_ourselves();
    let keeper = spi::one(
        "SELECT k.name, k.of, k.since, k.help FROM ( \
          SELECT 'pid ' || s.pid, coalesce(nullif(s.application_name, ''), s.backend_type), coalesce(s.xact_start, s.backend_start), \
            'SELECT pg_terminate_backend(' || s.pid || ')', age(s.backend_xmin) \
           FROM pg_stat_get_activity(NULL) AS s WHERE s.backend_xmin IS NOT NULL AND s.pid <> pg_backend_pid() \
            AND (s.backend_type = 'walsender' OR s.datid = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())) \
          UNION ALL SELECT 'prepared transaction ' || p.gid, NULL, p.prepared, \
            'COMMIT PREPARED ' || quote_literal(p.gid) || ' or ROLLBACK PREPARED', age(p.transaction) \
           FROM pg_prepared_xacts AS p WHERE p.database = current_database() \
          UNION ALL SELECT 'replication slot ' || r.slot_name, NULL, NULL, \
            'SELECT pg_drop_replication_slot(' || quote_literal(r.slot_name) || '), if nobody needs it', age(r.xmin) \
           FROM pg_replication_slots AS r WHERE r.xmin IS NOT NULL AND NOT r.active) AS k(name, of, since, help, age) \
         ORDER BY k.age DESC LIMIT 1",
        Snapshot::Active,
        &[],
        Transaction::from_row,
    )?;
    let old = |at| SLOW_READS.grade(Some(at), facts.now) > Grade::Ok;
    keeper.since.is_none_or(old).then_some(keeper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(rows: i64, updates: i64, hot: i64, dead: i64) -> Counted {
        Counted {
            name: "t".into(),
            updates,
            hot,
            rows,
            dead,
            fillfactor: 100,
            vacuumed: [true; 3],
            counting: true,
            being_vacuumed: false,
            vacuumed_at: None,
        }
    }

    #[test]
    fn a_share_of_few_or_of_one_filling_is_no_sign() {
        // Nothing counted, after a reset; few.
        assert_eq!(counted(50_000, 0, 0, 0).hot_too_rare(), None);
        assert_eq!(counted(10, 1009, 0, 0).hot_too_rare(), None);
        assert_eq!(counted(10, 1010, 0, 0).hot_too_rare(), Some(0));
        // The first filling, and what an app has changed since then.
        assert_eq!(counted(50_000, 50_000, 0, 0).hot_too_rare(), None);
        assert_eq!(counted(50_000, 52_000, 1_000, 0).hot_too_rare(), None);
        assert_eq!(counted(50_000, 52_000, 999, 0).hot_too_rare(), Some(49));
        assert_eq!(counted(50_000, 52_000, 1_990, 0).hot_too_rare(), None);
        // All of many are HOT.
        assert_eq!(counted(1_000, 90_000, 90_000, 0).hot_too_rare(), None);
    }

    #[test]
    fn half_as_many_dead_rows_are_many() {
        assert!(!counted(1_000, 0, 0, 999).many_dead());
        assert!(counted(1_999, 0, 0, 1_000).many_dead());
        assert!(!counted(2_000, 0, 0, 1_000).many_dead());
        let being = Counted { being_vacuumed: true, ..counted(10, 0, 0, 5_000) };
        assert!(!being.many_dead());
    }

    #[test]
    fn what_a_filling_leaves_is_left_for_a_while() {
        const HOUR: i64 = 3_600_000_000;
        assert!(!counted(1_000, 0, 0, 2_000).left_alone(0));
        assert!(counted(1_000, 0, 0, 2_001).left_alone(0));
        let came = |at| Counted { vacuumed_at: Some(at), ..counted(1_000, 0, 0, 9_000) };
        assert!(!came(1).left_alone(HOUR));
        assert!(came(0).left_alone(HOUR));
    }
}
