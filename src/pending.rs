//! What is not to be trusted, in one small table: the current epoch, pending epochs, pending keys;
//! and the reader's rule over it.
//!
//! Invariant: a row here commits with the change that it speaks of, so a snapshot that sees the
//! change sees the row. A pending epoch has no number until refresh gives it one in a transaction
//! that sees it: a stamp not smaller than that number was computed in a snapshot that saw the change.

use crate::attachment::Attached;
use crate::pg::spi::{self, Arg, At};
use crate::pg::{Oid, value::Uuid, xact};
use crate::rights::as_ourselves;
use crate::routes::{Sql, by_column};
use crate::session;
use crate::settings;

/// A change that may touch many profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingEpoch {
    pub epoch: Option<i64>,
    /// Row versions of an older xmin have been through a complete pass.
    pub passed_to: Option<u64>,
}

/// The small table as one snapshot shows it.
#[derive(Default, Debug)]
pub struct Pending {
    pub current: Option<i64>,
    pub epochs: Vec<PendingEpoch>,
    /// Columns of profiles, and their values as text.
    pub keys: Vec<(Vec<String>, Vec<String>)>,
    /// There is more than a read should look at: what it does not see may concern any profile.
    pub overflow: bool,
}

/// What the reader's rule looks at in a profile's row.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    pub epoch: Option<i64>,
    pub valid_until: Option<i64>,
    pub updated_at: Option<i64>,
    pub xmin: u32,
    /// A pending key names the row.
    pub named: bool,
    pub key: Option<Uuid>,
}

impl Looked {
    /// Reads the columns of [`Sql::stored`] and its kin.
    pub fn from_row(r: &spi::Row) -> Looked {
        Looked {
            epoch: r.int8(1),
            valid_until: r.timestamptz(2),
            updated_at: r.timestamptz(3),
            xmin: r.int8(4).and_then(|x| u32::try_from(x).ok()).unwrap_or(0),
            named: r.bool(5).unwrap_or(true),
            key: r.uuid(6),
        }
    }
}

/// Why a stored document is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// `profile_cache.enabled` is off.
    Disabled,
    /// A trigger of ours does not fire, or the attachment has a problem.
    Triggers,
    /// This transaction has changed something that it has not computed yet.
    Unsettled,
    /// Not stored, or distrusted.
    Null,
    /// Stamped by another attachment.
    Foreign,
    Expired,
    /// Computed by a transaction that began after this one.
    Future,
    /// A change is pending that may concern it.
    Pending,
}

impl Miss {
    pub fn name(self) -> &'static str {
        match self {
            Miss::Disabled => "disabled",
            Miss::Triggers => "triggers",
            Miss::Unsettled => "changed in this transaction",
            Miss::Null => "not cached",
            Miss::Foreign => "foreign stamp",
            Miss::Expired => "expired",
            Miss::Future => "from the future",
            Miss::Pending => "pending",
        }
    }
}

impl Pending {
    /// The state in a snapshot.
    pub fn load(at: At) -> Pending {
        let _us = as_ourselves();
        let mut state = Pending::default();
        let rows = spi::query(
            "SELECT p.kind, p.epoch, p.key_columns::pg_catalog.text[], p.key_values, \
              CASE WHEN p.kind OPERATOR(pg_catalog.=) 'epoch' THEN \
               (SELECT d.passed_to::pg_catalog.text::pg_catalog.int8 FROM profile_cache.drain AS d \
                WHERE d.epoch OPERATOR(pg_catalog.=) p.epoch) END \
             FROM profile_cache.pending AS p LIMIT 201",
            at,
            &[],
            |r| match r.text(1).as_deref() {
                Some("current") => state.current = r.int8(2),
                Some("key") => {
                    if let (Some(columns), Some(values)) = (r.texts(3), r.texts(4)) {
                        state.keys.push((columns, values));
                    }
                }
                _ => state.epochs.push(PendingEpoch {
                    epoch: r.int8(2),
                    passed_to: r.int8(5).and_then(|x| u64::try_from(x).ok()),
                }),
            },
        );
        state.overflow = rows > 200;
        state
    }

    /// The reader's rule, but for what concerns the backend and not the row. `next_xid`: a full
    /// transaction id greater than every one in use.
    pub fn judge(&self, l: &Looked, first: i64, now: i64, next_xid: u64) -> Result<(), Miss> {
        let Some(stamp) = l.epoch else {
            return Err(Miss::Null);
        };
        if self.overflow {
            return Err(Miss::Pending);
        }
        if stamp < first || self.current.is_none_or(|current| stamp > current) {
            return Err(Miss::Foreign);
        }
        if l.valid_until.is_some_and(|until| until <= now) {
            return Err(Miss::Expired);
        }
        if l.updated_at.is_none_or(|at| at > now) {
            return Err(Miss::Future);
        }
        let concerned = |e: &PendingEpoch| match e.epoch {
            None => true,
            Some(epoch) => {
                epoch > stamp
                    && e.passed_to
                        .is_none_or(|to| full_xid(l.xmin, next_xid) >= to)
            }
        };
        if l.named || self.epochs.iter().any(concerned) {
            return Err(Miss::Pending);
        }
        Ok(())
    }

    /// The condition "a pending key names row p", its parameters numbered from `n`.
    pub fn named(&self, a: &Attached, n: usize) -> (String, Vec<Arg>) {
        if self.keys.is_empty() || self.overflow {
            return ("false".into(), vec![]);
        }
        let naming = a.naming();
        if self
            .keys
            .iter()
            .any(|(c, _)| !naming.iter().any(|(s, _)| s.column_names() == *c))
        {
            // A key of columns that nothing refers to any more: no telling whom it names.
            return ("true".into(), vec![]);
        }
        let (mut conditions, mut args) = (vec![], vec![]);
        for (step, types) in &naming {
            let columns = step.column_names();
            let values: Vec<Vec<String>> = self
                .keys
                .iter()
                .filter(|(c, _)| *c == columns)
                .map(|(_, v)| v.clone())
                .collect();
            if !values.is_empty() {
                conditions.push(Sql::named(step, types, n + args.len()));
                let values = by_column(columns.len(), &values);
                args.extend(values.iter().map(|v| Arg::texts(v)));
            }
        }
        (format!("({})", conditions.join(" OR ")), args)
    }
}

/// The full transaction id of a row version's xmin: the greatest one below `next` with these low
/// bits. A frozen version's true id may be older still, never newer, so "older than" stays true of
/// it. Ids under 3 are not transactions: counted as the newest.
pub fn full_xid(xmin: u32, next: u64) -> u64 {
    if xmin < 3 {
        return u64::MAX;
    }
    let candidate = (next & !0xffff_ffff) | u64::from(xmin);
    if candidate < next {
        candidate
    } else {
        candidate.saturating_sub(1 << 32)
    }
}

/// Everything is to be computed anew. O(1), once a transaction.
pub fn everything(reason: &str) {
    session::many();
    if !session::distrust_everything() {
        return;
    }
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.pending (kind, reason) VALUES ('epoch', $1)",
        &[Arg::text(reason)],
    );
}

/// The profiles that rows of a table lead to, by old and new values of its `columns`.
pub fn linked(schema: &str, table: &str, columns: &[String], values: &[Vec<String>]) {
    session::many();
    if session::everything_is_pending() {
        return;
    }
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.pending (kind, reason, link_schema, link_table, link_columns, link_values) \
         VALUES ('epoch', 'rows changed', $1, $2, $3::name[], $4)",
        &[
            Arg::text(schema),
            Arg::text(table),
            Arg::texts(columns),
            Arg::texts(&values.concat()),
        ],
    );
}

/// Where everything is pending, by a row of this transaction's: values of columns that may have
/// become others go from the rows before it. Those that a refresh has in hand stay: it must not wait
/// for DDL, nor DDL for it.
pub fn forget_values() {
    session::forget_keys();
    let _us = as_ourselves();
    let free = |kind: &str| {
        format!(
            "id IN (SELECT p.id FROM profile_cache.pending AS p WHERE p.kind = '{kind}' FOR UPDATE SKIP LOCKED)"
        )
    };
    let keys = format!("DELETE FROM profile_cache.pending WHERE {}", free("key"));
    spi::run(&keys, &[]);
    let links = format!(
        "UPDATE profile_cache.pending SET link_schema = NULL, link_table = NULL, link_columns = NULL, \
         link_values = NULL WHERE link_schema IS NOT NULL AND {}",
        free("epoch")
    );
    spi::run(&links, &[]);
}

/// Single profiles, by values of some of their columns. From writers: so many in one transaction that
/// looking for each would cost more than computing become everything.
pub fn keys(columns: &[String], values: impl Iterator<Item = Vec<String>>, reason: &str) {
    let new = unnamed(columns, values);
    if new.is_empty() {
        return;
    }
    session::many();
    if session::keys_named() > settings::max_immediate().max(1) {
        return everything("more pending keys than profile_cache.max_immediate in one transaction");
    }
    insert_keys(columns, &new, reason);
}

/// The same from refresh, whose work it is to get rid of them: never everything.
pub fn leftovers(columns: &[String], values: impl Iterator<Item = Vec<String>>, reason: &str) {
    let new = unnamed(columns, values);
    if !new.is_empty() {
        insert_keys(columns, &new, reason);
    }
}

/// Those that this transaction has not named yet.
fn unnamed(columns: &[String], values: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    values.filter(|v| session::name_key(columns, v)).collect()
}

fn insert_keys(columns: &[String], values: &[Vec<String>], reason: &str) {
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.pending (kind, reason, key_columns, key_values) \
         SELECT 'key', $1, $2::name[], $3[i - cardinality($2) + 1:i] \
         FROM generate_series(cardinality($2), cardinality($3), cardinality($2)) AS i",
        &[
            Arg::text(reason),
            Arg::texts(columns),
            Arg::texts(&values.concat()),
        ],
    );
}

/// Remembers that a profile's document could not be computed or written; the SQLSTATE only, a message
/// may hold its data.
pub fn failed(key: &Uuid, sqlstate: &str) {
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.failure (user_id, sqlstate) SELECT $1, $2 \
         WHERE (SELECT count(*) FROM (SELECT FROM profile_cache.failure LIMIT 1000) AS f) < 1000 \
          AND NOT EXISTS (SELECT FROM profile_cache.failure AS f WHERE f.user_id = $1 AND f.sqlstate = $2)",
        &[Arg::uuid(Some(key)), Arg::text(sqlstate)],
    );
}

/// The profiles whose document could not be computed or written, and when last.
pub fn failures() -> Vec<(Uuid, String)> {
    let _us = as_ourselves();
    let sql = "SELECT f.user_id, max(f.failed_at)::text FROM profile_cache.failure AS f GROUP BY 1";
    spi::all(sql, At::New, &[], |r| r.uuid(1).zip(r.text(2)))
        .into_iter()
        .flatten()
        .collect()
}

/// Forgets the failures of these profiles.
pub fn mended(keys: &[Uuid]) {
    let _us = as_ourselves();
    spi::run(
        "DELETE FROM profile_cache.failure AS f WHERE f.user_id = ANY ($1)",
        &[Arg::uuids(keys)],
    );
}

/// Virtual transactions, as `pg_locks` names them, that hold ROW EXCLUSIVE or more on a table: those
/// that may have looked at the current epoch before now. A prepared transaction keeps its name until
/// a restart and then goes by its XID (`-1/xid`).
pub fn holders(table: Oid) -> Vec<String> {
    let _us = as_ourselves();
    spi::all(
        "SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks AS l \
         WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted \
          AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d \
                            WHERE d.datname = pg_catalog.current_database()) \
          AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
          AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()",
        At::New,
        &[Arg::oid(table)],
        |r| r.text(1).unwrap_or_default(),
    )
}

/// Whether any of those transactions is still there: each holds a lock as long as it lives.
pub fn any_alive(holders: &[String]) -> bool {
    if holders.is_empty() {
        return false;
    }
    let _us = as_ourselves();
    spi::one(
        "SELECT FROM pg_catalog.pg_locks AS l WHERE l.virtualtransaction = ANY ($1) LIMIT 1",
        At::New,
        &[Arg::texts(holders)],
        |_| (),
    )
    .is_some()
}

/// What the reader's rule needs besides the rows, in one place.
pub struct Judge {
    pub pending: Pending,
    first: i64,
    now: i64,
    next_xid: u64,
}

impl Judge {
    pub fn new(a: &Attached, at: At) -> Judge {
        let pending = Pending::load(at);
        let next_xid = if pending.epochs.is_empty() {
            0
        } else {
            xact::next_full_xid()
        };
        Judge {
            pending,
            first: a.first,
            now: xact::now(),
            next_xid,
        }
    }
    /// Where the snapshot shows no pending row.
    pub fn nothing_pending(a: &Attached, current: i64) -> Judge {
        Judge {
            pending: Pending {
                current: Some(current),
                ..Pending::default()
            },
            first: a.first,
            now: xact::now(),
            next_xid: 0,
        }
    }
    pub fn of(&self, l: &Looked) -> Result<(), Miss> {
        self.pending.judge(l, self.first, self.now, self.next_xid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Looked = Looked {
        epoch: Some(10),
        valid_until: None,
        updated_at: Some(5),
        xmin: 100,
        named: false,
        key: None,
    };

    fn pending(epochs: &[(Option<i64>, Option<u64>)]) -> Pending {
        Pending {
            current: Some(12),
            epochs: epochs
                .iter()
                .map(|&(epoch, passed_to)| PendingEpoch { epoch, passed_to })
                .collect(),
            ..Pending::default()
        }
    }

    fn judge(p: &Pending, l: &Looked) -> Result<(), Miss> {
        p.judge(l, 8, 50, 1000)
    }

    #[test]
    fn a_stamp_counts_only_within_the_attachment_s_epochs() {
        let p = pending(&[]);
        assert_eq!(judge(&p, &OK), Ok(()));
        for (epoch, miss) in [
            (None, Miss::Null),
            (Some(7), Miss::Foreign),
            (Some(13), Miss::Foreign),
        ] {
            assert_eq!(judge(&p, &Looked { epoch, ..OK }), Err(miss));
        }
        assert_eq!(judge(&Pending::default(), &OK), Err(Miss::Foreign));
    }

    #[test]
    fn time_is_the_reader_s_now() {
        let p = pending(&[]);
        assert_eq!(
            judge(
                &p,
                &Looked {
                    valid_until: Some(50),
                    ..OK
                }
            ),
            Err(Miss::Expired)
        );
        assert_eq!(
            judge(
                &p,
                &Looked {
                    valid_until: Some(51),
                    ..OK
                }
            ),
            Ok(())
        );
        assert_eq!(
            judge(
                &p,
                &Looked {
                    updated_at: Some(51),
                    ..OK
                }
            ),
            Err(Miss::Future)
        );
        assert_eq!(
            judge(
                &p,
                &Looked {
                    updated_at: Some(50),
                    ..OK
                }
            ),
            Ok(())
        );
    }

    #[test]
    fn a_pending_epoch_concerns_older_stamps_until_a_pass_has_seen_the_row() {
        assert_eq!(judge(&pending(&[(None, None)]), &OK), Err(Miss::Pending));
        assert_eq!(
            judge(&pending(&[(Some(11), None)]), &OK),
            Err(Miss::Pending)
        );
        assert_eq!(judge(&pending(&[(Some(10), None)]), &OK), Ok(()));
        assert_eq!(judge(&pending(&[(Some(11), Some(101))]), &OK), Ok(()));
        assert_eq!(
            judge(&pending(&[(Some(11), Some(100))]), &OK),
            Err(Miss::Pending)
        );
        assert_eq!(
            judge(&pending(&[]), &Looked { named: true, ..OK }),
            Err(Miss::Pending)
        );
    }

    #[test]
    fn what_is_not_looked_at_may_concern_anyone() {
        let p = Pending {
            overflow: true,
            ..pending(&[])
        };
        assert_eq!(judge(&p, &OK), Err(Miss::Pending));
    }

    #[test]
    fn an_xmin_is_widened_to_the_newest_id_it_can_be() {
        assert_eq!(full_xid(100, 1000), 100);
        assert_eq!(full_xid(999, 1000), 999);
        assert_eq!(full_xid(100, (7 << 32) + 1000), (7 << 32) + 100);
        // Its low bits are beyond those of the next id: it is from the epoch before.
        assert_eq!(full_xid(2000, (7 << 32) + 1000), (6 << 32) + 2000);
        assert_eq!(full_xid(2, 1000), u64::MAX);
    }
}
