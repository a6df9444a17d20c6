//! Whose transactions refresh, or a read, waits for; and what ends them.
//!
//! Invariant: only reads what PostgreSQL shows of its locks; it may be over by the time that it is read.

use super::since;
use crate::attachment::Attached;
use crate::blockers::{OF_TABLE_HERE, WHOSE};
use crate::error::Error;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::refresh::RUN;
use crate::rights::as_ourselves;

/// A transaction of somebody's.
pub(super) struct Transaction {
    /// `pid …`, or `prepared transaction …`.
    pub name: String,
    /// Which program's it is.
    pub of: Option<String>,
    pub since: Option<i64>,
    /// What ends it.
    pub end: String,
}

impl Transaction {
    /// The columns of [`TRANSACTIONS`].
    pub fn from_row(r: &spi::Row) -> Transaction {
        Transaction {
            name: r.text(1).unwrap_or_else(|| unnamed()),
            of: r.text(2),
            since: r.timestamptz(3),
            // A prepared one that has just ended has none.
            end: r.text(4).unwrap_or_default(),
        }
    }

    /// Whose it is, and since when.
    pub fn who(&self) -> String {
        let of = self.of.as_deref();
        let of = of.map_or_else(String::new, |of| format!(" ({of})"));
        format!("{}{of}{}", self.name, since(self.since))
    }
}

fn unnamed() -> ! {
    Error::Internal("pg_locks shows a lock of no transaction, or on no table".into()).raise()
}

/// Of rows `l` of `pg_locks`, grouped by their transaction: its name, program, beginning, and what ends it. The
/// rows need not have the prepared ones' own.
const TRANSACTIONS: &str = "coalesce('prepared transaction ' || max(p.gid), 'pid ' || max(l.pid), l.virtualtransaction), \
   coalesce(nullif(max(s.application_name), ''), nullif(max(s.backend_type), 'client backend')), \
   coalesce(max(p.prepared), max(s.xact_start)), \
   coalesce('COMMIT PREPARED ' || quote_literal(max(p.gid)) || ' or ROLLBACK PREPARED', 'SELECT pg_terminate_backend(' || max(l.pid) || ')') ";

/// The transactions whose end refresh waits for. Their names are of the run of the server that noted them: in
/// another, somebody else's transaction has them; but for that of a prepared one after a restart.
pub(super) fn holders() -> Vec<Transaction> {
    let _us = as_ourselves();
    spi::all(
        &format!(
            "SELECT {TRANSACTIONS} FROM pg_locks AS l {WHOSE} WHERE l.virtualtransaction IN \
              (SELECT h.v FROM (SELECT d.server_start, unnest(d.holders) FROM profile_cache.epoch_progress AS d \
                UNION ALL SELECT b.server_start, unnest(b.holders) FROM profile_cache.unmatched_key AS b) AS h(run, v) \
               WHERE h.run = {RUN} OR h.v LIKE '-1/%') \
             GROUP BY l.virtualtransaction ORDER BY 1"
        ),
        Snapshot::Active,
        &[],
        Transaction::from_row,
    )
}

/// The transactions that hold locks with which nothing can be computed, and on what.
pub(super) fn lockers(a: &Attached) -> Vec<(String, Transaction)> {
    let _us = as_ourselves();
    spi::all(
        &format!(
            "SELECT {TRANSACTIONS}, string_agg(DISTINCT l.relation::regclass::text, ', ') FROM pg_locks AS l {WHOSE} \
             WHERE {OF_TABLE_HERE} AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() \
              AND (l.mode = 'AccessExclusiveLock' AND l.relation = ANY ($2) OR l.relation = $1 AND l.mode IN \
               ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')) \
             GROUP BY l.virtualtransaction ORDER BY 1"
        ),
        Snapshot::Active,
        &[Arg::oid(a.profile), Arg::oids(&a.read)],
        |r| (r.text(5).unwrap_or_else(|| unnamed()), Transaction::from_row(r)),
    )
}

/// The transactions that have been writing profiles since before then.
pub(super) fn writers_before(a: &Attached, at: Option<i64>) -> Vec<Transaction> {
    let _us = as_ourselves();
    let writers = spi::all(
        &format!(
            "SELECT {TRANSACTIONS} FROM pg_locks AS l {WHOSE} \
             WHERE {OF_TABLE_HERE} AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() \
              AND l.relation = $1 AND l.mode IN ('RowShareLock', 'RowExclusiveLock') \
             GROUP BY l.virtualtransaction ORDER BY 1"
        ),
        Snapshot::Active,
        &[Arg::oid(a.profile)],
        Transaction::from_row,
    );
    let old = |t: &Transaction| t.since < at;
    writers.into_iter().filter(old).collect()
}
