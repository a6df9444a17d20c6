//! Lock holders: who may have looked at the current epoch, or may yet bring a row, before refresh went on.
//!
//! Invariant: a holder is noted by the name that `pg_locks` gives its transaction, together with the run of the server
//! that it is of. It counts as there for as long as any lock bears that name; nobody waits for it.
//!
//! Rules: E2, E3, E15.

use crate::blockers::OF_TABLE_HERE;
use crate::error::Error;
use crate::pg::Oid;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::rights::as_ourselves;

/// When this run of the server began. A crash of one backend makes the postmaster start over with
/// fresh shared memory but its own start time; the checkpointer is started anew then too.
pub const RUN: &str = "(SELECT GREATEST(pg_postmaster_start_time(), max(s.backend_start)) \
     FROM pg_stat_get_activity(NULL) AS s WHERE s.backend_type = 'checkpointer')";

/// Of a row `l` of `pg_locks`, that its holder may write: ROW EXCLUSIVE or more.
const MAY_WRITE: &str = "l.mode IN \
     ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";

/// Virtual transactions, as `pg_locks` names them, that hold ROW EXCLUSIVE or more on a table: those
/// that may have looked at the current epoch before now. A prepared transaction keeps its name until
/// a restart and then goes by its XID (`-1/xid`).
pub fn holders(table: Oid) -> Vec<String> {
    let _us = as_ourselves();
    spi::all(
        &format!(
            "SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks AS l \
             WHERE {OF_TABLE_HERE} AND l.relation = $1 AND l.granted \
              AND {MAY_WRITE} \
              AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()"
        ),
        Snapshot::New,
        &[Arg::oid(table)],
        name,
    )
}

/// The same for transactions that may be logical replication's: what its workers have under way, whatever
/// they hold, and what is prepared and holds one of these tables.
pub fn appliers(tables: &[Oid]) -> Vec<String> {
    of_tables(tables, "false")
}

/// These, and whoever may write to one of these tables.
pub fn appliers_and_writers(tables: &[Oid]) -> Vec<String> {
    of_tables(tables, &format!("l.pid <> pg_catalog.pg_backend_pid() AND {MAY_WRITE}"))
}

fn of_tables(tables: &[Oid], others: &str) -> Vec<String> {
    let _us = as_ourselves();
    spi::all(
        &format!(
            "SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks AS l WHERE l.granted \
              AND (l.pid IN (SELECT s.pid FROM pg_catalog.pg_stat_get_activity(NULL) AS s \
                             WHERE s.backend_type LIKE 'logical replication%') \
               OR {OF_TABLE_HERE} AND l.relation = ANY ($1) AND (l.pid IS NULL OR {others}))"
        ),
        Snapshot::New,
        &[Arg::oids(tables)],
        name,
    )
}

/// A holder's name. One that is missing would count as gone.
fn name(r: &spi::Row) -> String {
    let missing = || Error::Internal("pg_locks shows a lock of no transaction".into()).raise();
    r.text(1).unwrap_or_else(missing)
}

/// How many of those transactions are still there: each holds a lock as long as it lives.
pub fn alive(holders: &[String]) -> i64 {
    if holders.is_empty() {
        return 0;
    }
    let _us = as_ourselves();
    spi::one(
        "SELECT pg_catalog.count(DISTINCT l.virtualtransaction) FROM pg_catalog.pg_locks AS l \
         WHERE l.virtualtransaction = ANY ($1)",
        Snapshot::New,
        &[Arg::texts(holders)],
        |r| r.int8(1),
    )
    .flatten()
    .unwrap_or_else(|| Error::Internal("the holders of locks could not be counted".into()).raise())
}
