//! Who is in the way of a lock, in words; and the words of SQL by which `pg_locks` is asked elsewhere.
//!
//! Invariant: only reads what PostgreSQL shows of its locks; it may be over by the time that it is read.

use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, locks};
use crate::rights::as_ourselves;
use pgrx::pg_sys;

/// A mode of locking a table.
#[derive(Clone, Copy)]
#[repr(i32)]
pub enum Mode {
    AccessShare = pg_sys::AccessShareLock as i32,
    ShareUpdateExclusive = pg_sys::ShareUpdateExclusiveLock as i32,
    ShareRowExclusive = pg_sys::ShareRowExclusiveLock as i32,
    Exclusive = pg_sys::ExclusiveLock as i32,
    AccessExclusive = pg_sys::AccessExclusiveLock as i32,
}

impl Mode {
    /// As LOCK TABLE names it.
    pub fn sql(self) -> &'static str {
        match self {
            Mode::AccessShare => "ACCESS SHARE",
            Mode::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Mode::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Mode::Exclusive => "EXCLUSIVE",
            Mode::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }
}

/// All modes as pg_locks names them, the weakest, of number 1, first (lockdefs.h).
const MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];

/// Of a row `l` of `pg_locks`, that it is of a table of this database.
pub const OF_TABLE_HERE: &str = "l.locktype = 'relation' AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d \
   WHERE d.datname = pg_catalog.current_database())";

/// Whose the rows `l` of `pg_locks` are: joins the backend `s`, or the prepared transaction `p`, which has no process; its
/// lock on itself, `t`, says which it is.
pub const WHOSE: &str = " LEFT JOIN pg_catalog.pg_locks AS t ON t.virtualtransaction = l.virtualtransaction \
    AND t.locktype = 'transactionid' AND l.pid IS NULL AND t.pid IS NULL \
   LEFT JOIN pg_catalog.pg_prepared_xacts AS p ON p.transaction = t.transactionid \
   LEFT JOIN pg_catalog.pg_stat_get_activity(NULL) AS s ON s.pid = l.pid ";

/// No more than these are named.
const MOST: usize = 5;

/// Who holds, or waits for, what keeps us from locking these tables: the process and its application or the
/// prepared transaction, and since when it runs. Who holds comes first, the oldest before the others.
pub fn blockers(wanted: &[(Oid, Mode)]) -> Vec<String> {
    let tables: Vec<Oid> = wanted.iter().map(|(table, _)| *table).collect();
    let _us = as_ourselves();
    let found = spi::all(
        &format!(
            "SELECT l.relation, l.mode, CASE \
          WHEN l.pid IS NULL THEN pg_catalog.format('prepared transaction %L, since %s', p.gid, \
           pg_catalog.date_trunc('second', p.prepared)) \
          WHEN s.backend_type = 'autovacuum worker' THEN pg_catalog.format('process %s (%s), since %s', l.pid, \
           s.query, pg_catalog.date_trunc('second', s.xact_start)) \
          ELSE pg_catalog.format('process %s (%s, %s), since %s', l.pid, \
           coalesce(nullif(s.application_name, ''), s.backend_type), s.state, \
           pg_catalog.date_trunc('second', s.xact_start)) END, \
          CASE WHEN l.granted THEN 'holds ' ELSE 'waits for ' END || l.mode || ' on ' || l.relation::pg_catalog.regclass::text \
           || coalesce(', behind ' || nullif(b.whom, ''), '') \
         FROM pg_catalog.pg_locks AS l {WHOSE} \
         LEFT JOIN LATERAL (SELECT pg_catalog.string_agg(DISTINCT CASE k.pid WHEN 0 THEN 'a prepared transaction' ELSE 'process ' || k.pid END, ', ') \
          FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) AS k(pid) WHERE NOT l.granted) AS b(whom) ON true \
         WHERE {OF_TABLE_HERE} AND l.relation = ANY ($1) AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() \
          AND (l.pid IS NOT NULL OR p.gid IS NOT NULL) \
         ORDER BY l.granted DESC, coalesce(s.xact_start, p.prepared), l.pid, l.relation::pg_catalog.regclass::text COLLATE \"C\", l.mode"
        ),
        Snapshot::Latest,
        &[Arg::oids(&tables)],
        |r| Some((r.oid(1)?, r.text(2)?, r.text(3)?, r.text(4)?)),
    );
    let conflicts = |(table, mode, ..): &(Oid, String, String, String)| {
        let number = MODES.iter().position(|m| m == mode).map(|n| n as i32 + 1);
        wanted
            .iter()
            .filter(|(t, _)| t == table)
            .any(|(_, w)| number.is_none_or(|n| locks::modes_conflict(*w as i32, n)))
    };
    let mut blockers: Vec<(String, Vec<String>)> = vec![];
    for (_, _, who, what) in found.into_iter().flatten().filter(conflicts) {
        match blockers.iter_mut().find(|(known, _)| *known == who) {
            Some((_, all)) => all.push(what),
            None => blockers.push((who, vec![what])),
        }
    }
    let words = |(who, all): (String, Vec<String>)| format!("{who}, {}", all.join(", "));
    blockers.into_iter().take(MOST).map(words).collect()
}
