//! What is not to be trusted: the current epoch, pending epochs, pending keys; and the reader's rule
//! over them.
//!
//! Invariant: a row here commits with the change that it speaks of, so a snapshot that sees the
//! change sees the row. A pending epoch has no number until refresh gives it one in a transaction
//! that sees it: a stamp not smaller than that number was computed in a snapshot that saw the change.
//! A writer reads the current epoch and nothing else, so that writers do not conflict with each other
//! at SERIALIZABLE by what they add.

use crate::attachment::{Attached, Naming};
use crate::definition::{Sql, by_column};
use crate::iso8601::UNIX_TO_POSTGRES;
use crate::pg::scan::{KeyHash, Look};
use crate::pg::spi::{self, Arg, At};
use crate::pg::{Oid, catalog, tuple, value::Uuid, xact};
use crate::rights::{as_ourselves, home};
use crate::settings;
use crate::xact_state;
use std::collections::HashSet;

/// A change that may touch many profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingEpoch {
    pub epoch: Option<i64>,
    /// Row versions of an older xmin have been through a complete pass.
    pub passed_to: Option<u64>,
}

/// What is pending, as one snapshot shows it.
#[derive(Default, Debug)]
pub struct Pending {
    pub current: Option<i64>,
    pub epochs: Vec<PendingEpoch>,
    /// There are more than a read should look at: what it does not see may concern any profile.
    pub overflow: bool,
}

/// How many pending epochs a read looks at.
pub const MOST: u64 = 200;

/// How many failures are remembered.
pub const MOST_FAILURES: i64 = 1000;

/// The pending keys, as one snapshot shows them, for who looks at many profiles.
#[derive(Default, Debug)]
pub struct PendingKeys {
    hashes: HashSet<KeyHash>,
    /// Keys whose equal values may have different texts: their columns, and values as text.
    loose: Vec<(Vec<String>, Vec<String>)>,
    /// No telling whom some of them name.
    anyone: Option<Anyone>,
}

/// Why any profile may be pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anyone {
    /// There are more than are looked at where many profiles are; a read of one finds its own.
    TooMany,
    /// Some are of columns that the definition does not know, or more than a read looks at have no hash.
    Unknown,
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
    /// Reads the columns of [`Sql::stored`] and its kin. `any`: whether one of these keys is pending.
    pub fn from_row(r: &spi::Row, a: &Attached, any: impl Fn(&[KeyHash]) -> bool) -> Looked {
        Looked {
            epoch: r.int8(1),
            valid_until: r.timestamptz(2),
            updated_at: r.timestamptz(3),
            xmin: r.int8(4).and_then(|x| u32::try_from(x).ok()).unwrap_or(0),
            named: r.bool(5).unwrap_or(true) || any(&Looked::names(r, a)),
            key: r.uuid(6),
        }
    }

    /// How pending keys that have a hash would name the row.
    pub fn names(r: &spi::Row, a: &Attached) -> Vec<KeyHash> {
        let texts = r.texts(7).unwrap_or_default();
        let mut texts = texts.into_iter();
        let names = a.naming.iter().filter(|n| n.plain);
        names.map(|n| n.hash(&texts.by_ref().take(n.types.len()).collect::<Vec<_>>())).collect()
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
    /// Stamped by another attachment, or under another definition.
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
    /// The state in a snapshot; `current`: what it shows as the current epoch.
    pub fn load(at: At, current: Option<i64>) -> Pending {
        let mut state = Pending { current, ..Pending::default() };
        let _us = as_ourselves();
        let rows = spi::query(
            "SELECT p.epoch, (SELECT d.passed_to::pg_catalog.text::pg_catalog.int8 FROM profile_cache.drain AS d \
              WHERE d.epoch OPERATOR(pg_catalog.=) p.epoch) \
             FROM profile_cache.pending_epoch AS p WHERE p.horizon OPERATOR(pg_catalog.>=) coalesce( \
              (SELECT h.pending_from FROM profile_cache.horizon AS h), 0) LIMIT 201",
            at,
            &[],
            |r| {
                state.epochs.push(PendingEpoch {
                    epoch: r.int8(1),
                    passed_to: r.int8(2).and_then(|x| u64::try_from(x).ok()),
                });
            },
        );
        state.overflow = rows > MOST;
        state
    }

    /// The reader's rule, but for what concerns the backend and not the row. `first`: stamps below are
    /// not trusted, none are where it is not there. `next_xid`: a full transaction id greater than every
    /// one in use.
    pub fn judge(
        &self,
        l: &Looked,
        first: Option<i64>,
        now: i64,
        next_xid: u64,
    ) -> Result<(), Miss> {
        let Some(stamp) = l.epoch else {
            return Err(Miss::Null);
        };
        let Some(first) = first.filter(|_| !self.overflow) else {
            return Err(Miss::Pending);
        };
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
                epoch > stamp && e.passed_to.is_none_or(|to| full_xid(l.xmin, next_xid) >= to)
            }
        };
        if l.named || self.epochs.iter().any(concerned) {
            return Err(Miss::Pending);
        }
        Ok(())
    }
}

impl PendingKeys {
    /// All of them in a snapshot, but for what is more than a look at the table should hold in memory.
    pub fn load(a: &Attached, at: At) -> PendingKeys {
        const MOST: usize = 100_000;
        let sets: Vec<i64> = a.naming.iter().map(|n| n.set).collect();
        let mut keys = PendingKeys::default();
        let _us = as_ourselves();
        spi::query(
            "SELECT k.key_set, k.key_hash FROM profile_cache.pending_key AS k LIMIT 100001",
            at,
            &[],
            |r| {
                if let (Some(set), Some(hash)) = (r.int8(1), r.int8(2)) {
                    if !sets.contains(&set) {
                        keys.anyone = Some(Anyone::Unknown);
                    }
                    keys.hashes.insert(KeyHash { set, hash });
                }
            },
        );
        if keys.anyone.is_none() && keys.hashes.len() > MOST {
            keys.anyone = Some(Anyone::TooMany);
        }
        keys.load_loose(a, at);
        keys
    }

    /// Whether one of these is pending.
    pub fn any(&self, names: &[KeyHash]) -> bool {
        self.anyone.is_some() || names.iter().any(|name| self.hashes.contains(name))
    }

    /// Why each profile counts as pending, where it does.
    pub fn anyone(&self) -> Option<Anyone> {
        self.anyone
    }

    /// Those alone that readers compare by the foreign key's own equality.
    pub fn loose(a: &Attached, at: At) -> PendingKeys {
        let mut keys = PendingKeys::default();
        keys.load_loose(a, at);
        keys
    }

    fn load_loose(&mut self, a: &Attached, at: At) {
        const MOST: u64 = 200;
        if a.naming.iter().all(|n| n.plain) {
            return;
        }
        let _us = as_ourselves();
        let rows = spi::query(
            "SELECT k.key_columns::pg_catalog.text[], k.key_values FROM profile_cache.pending_key AS k \
             WHERE k.key_hash OPERATOR(pg_catalog.=) 0 LIMIT 201",
            at,
            &[],
            |r| self.loose.extend(r.texts(1).zip(r.texts(2))),
        );
        if rows > MOST {
            self.anyone = Some(Anyone::Unknown);
        }
    }

    /// The condition "one of them that has no hash names row p", its parameters numbered from `n`.
    pub fn named(&self, a: &Attached, n: usize) -> (String, Vec<Arg>) {
        let (mut conditions, mut args) = (vec![], vec![]);
        for naming in a.naming.iter().filter(|n| !n.plain) {
            let columns = naming.step.column_names();
            let values: Vec<Vec<String>> =
                self.loose.iter().filter(|(c, _)| *c == columns).map(|(_, v)| v.clone()).collect();
            if !values.is_empty() {
                conditions.push(Sql::named(&naming.step, &naming.types, n + args.len()));
                let values = by_column(columns.len(), &values);
                args.extend(values.iter().map(|v| Arg::texts(v)));
            }
        }
        if self.anyone.is_some() {
            return ("true".into(), vec![]);
        }
        if conditions.is_empty() {
            return ("false".into(), args);
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
    if candidate < next { candidate } else { candidate.saturating_sub(1 << 32) }
}

/// Makes the row of the current epoch where there is none: the first one, Unix time in microseconds, so that it can be
/// read as one and no stamp of before is within. Whether there was none.
pub fn first_epoch() -> bool {
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.epoch (current, trusted_from) VALUES ($1, $1) ON CONFLICT DO NOTHING",
        &[Arg::int8(Some(UNIX_TO_POSTGRES + xact::clock()))],
    ) > 0
}

/// Of a pending epoch `p`, that its transaction is over: it is seen to have committed before it has told others what it
/// invalidates, and gives up its own lock after that.
pub const OVER: &str = "NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.locktype = 'transactionid' \
   AND l.transactionid = p.xmin AND l.mode = 'ExclusiveLock')";

/// Everything is to be computed anew. O(1), once a transaction.
pub fn everything(reason: &str) {
    xact_state::many();
    if xact_state::distrust_everything() {
        insert_everything(reason, false);
    }
}

/// The same where the document's definition has changed, which older snapshots see at once (catalogs
/// are not theirs): no stamp is trusted in any of them until refresh has numbered this.
pub fn redefined(reason: &str) {
    xact_state::many();
    xact_state::distrust_everything();
    if xact_state::redefine() {
        insert_everything(reason, true);
    }
    if let Some((home, _)) = home() {
        catalog::invalidate(home);
    }
}

/// The same where DDL could not be looked at, since another transaction had a lock that this takes: no
/// stamp is trusted until refresh, or attach(), has looked whether it concerns the document. `about`: the
/// objects. More than one row in a transaction, since each may turn out to concern nobody.
pub fn unseen(about: &[Oid]) {
    xact_state::many();
    {
        let _us = as_ourselves();
        spi::run(
            "INSERT INTO profile_cache.pending_epoch (redefined, apply, reason, about, horizon) VALUES (true, false, 'DDL', $1, $2)",
            &[Arg::oids(about), horizon()],
        );
    }
    if let Some((home, _)) = home() {
        catalog::invalidate(home);
    }
}

/// The same where a table may no longer be a target of logical replication: its apply fires no statement
/// triggers, so nothing speaks of what it has under way, and refresh numbers this only when that is over.
pub fn applied(reason: &str) {
    xact_state::many();
    xact_state::distrust_everything();
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.pending_epoch (redefined, apply, reason, horizon) VALUES (false, true, $1, $2)",
        &[Arg::text(reason), horizon()],
    );
}

fn insert_everything(reason: &str, redefined: bool) {
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.pending_epoch (redefined, apply, reason, horizon) VALUES ($2, false, $1, $3)",
        &[Arg::text(reason), Arg::bool(redefined), horizon()],
    );
}

/// The profiles that rows of a table lead to, by old and new values of its `columns`.
pub fn linked(schema: &str, table: &str, columns: &[String], values: &[Vec<String>]) {
    xact_state::many();
    if xact_state::everything_is_pending() {
        return;
    }
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.pending_epoch (redefined, apply, reason, link_schema, link_table, link_columns, link_values, horizon) \
         VALUES (false, false, 'rows changed', $1, $2, $3::pg_catalog.name[], $4, $5)",
        &[
            Arg::text(schema),
            Arg::text(table),
            Arg::texts(columns),
            Arg::texts(&values.concat()),
            horizon(),
        ],
    );
}

/// What a pending epoch that is about to be written bears: the next transaction id, read with its table locked. So
/// whoever finds nobody with that lock knows of all that is to come that it has no less than the next id before. And no
/// less than what is written down: after a crash ids begin again at the last that was logged.
fn horizon() -> Arg {
    if let Some(table) = catalog::relation("profile_cache", "pending_epoch") {
        tuple::lock_for_writing(table);
    }
    let _us = as_ourselves();
    let sql = "SELECT h.pending_from FROM profile_cache.horizon AS h";
    let known = spi::one(sql, At::Latest, &[], |r| r.int8(1)).flatten();
    Arg::int8(i64::try_from(xact::next_full_xid()).ok().max(known))
}

/// Writes down from which horizon on something is pending, so that a read need not step over what only old snapshots still
/// keep. Nothing where somebody may be adding to it. By refresh, when it has taken some away.
pub fn advance() {
    let _us = as_ourselves();
    let next = xact::next_full_xid();
    let others = spi::one(
        "SELECT FROM pg_catalog.pg_locks AS l WHERE l.locktype = 'relation' AND l.relation = 'profile_cache.pending_epoch'::pg_catalog.regclass \
          AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database()) \
          AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'SIReadLock') AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() LIMIT 1",
        At::New,
        &[],
        |_| (),
    );
    if others.is_some() {
        return;
    }
    spi::run(
        "INSERT INTO profile_cache.horizon (pending_from) \
         SELECT LEAST($1, (SELECT pg_catalog.min(p.horizon) FROM profile_cache.pending_epoch AS p)) \
         ON CONFLICT (singleton) DO UPDATE SET pending_from = excluded.pending_from",
        &[Arg::int8(i64::try_from(next).ok())],
    );
}

/// What pending rows say of columns is forgotten: everything is pending. A value whose column has
/// become others go from the rows before it. Those that a refresh has in hand stay: it must not wait
/// for DDL, nor DDL for it.
pub fn forget_values() {
    xact_state::forget_keys();
    let _us = as_ourselves();
    spi::run(
        "DELETE FROM profile_cache.pending_key WHERE id IN \
         (SELECT p.id FROM profile_cache.pending_key AS p FOR UPDATE SKIP LOCKED)",
        &[],
    );
    spi::run(
        "UPDATE profile_cache.pending_epoch SET link_schema = NULL, link_table = NULL, link_columns = NULL, \
          link_values = NULL WHERE id IN \
         (SELECT p.id FROM profile_cache.pending_epoch AS p WHERE p.link_schema IS NOT NULL FOR UPDATE SKIP LOCKED)",
        &[],
    );
}

/// Single profiles, by values of some of their columns. From writers: so many in one transaction that
/// looking for each would cost more than computing become everything.
pub fn keys(naming: &Naming, values: impl Iterator<Item = Vec<String>>, reason: &str) {
    let new = unnamed(naming, values);
    if new.is_empty() {
        return;
    }
    xact_state::many();
    if xact_state::keys_named() > settings::max_immediate().max(1) {
        return everything("more pending keys than profile_cache.max_immediate in one transaction");
    }
    insert_keys(naming, &new, reason);
}

/// The same from refresh, whose work it is to get rid of them: never everything.
pub fn leftovers(naming: &Naming, values: impl Iterator<Item = Vec<String>>, reason: &str) {
    let new = unnamed(naming, values);
    if !new.is_empty() {
        insert_keys(naming, &new, reason);
    }
}

/// Those that this transaction has not named yet.
fn unnamed(naming: &Naming, values: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let columns = naming.step.column_names();
    values.filter(|v| xact_state::name_key(&columns, v)).collect()
}

fn insert_keys(naming: &Naming, values: &[Vec<String>], reason: &str) {
    let hashes: Vec<i64> = values.iter().map(|v| naming.hash(v).hash).collect();
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.pending_key (key_set, key_hash, reason, key_columns, key_values) \
         SELECT $4, h.hash, $1, $2::pg_catalog.name[], $3[(h.n - 1) * cardinality($2) + 1:h.n * cardinality($2)] \
         FROM pg_catalog.unnest($5) WITH ORDINALITY AS h(hash, n)",
        &[
            Arg::text(reason),
            Arg::texts(&naming.step.column_names()),
            Arg::texts(&values.concat()),
            Arg::int8(Some(naming.set)),
            Arg::int8s(&hashes),
        ],
    );
}

/// Remembers that a profile's document could not be computed or written; the SQLSTATE only, a message
/// may hold its data.
pub fn failed(key: &Uuid, sqlstate: &str) {
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.failure (user_id, sqlstate) SELECT $1, $2 \
         WHERE (SELECT count(*) FROM (SELECT FROM profile_cache.failure LIMIT $3) AS f) < $3 \
          AND NOT EXISTS (SELECT FROM profile_cache.failure AS f WHERE f.user_id = $1 AND f.sqlstate = $2)",
        &[Arg::uuid(Some(key)), Arg::text(sqlstate), Arg::int8(Some(MOST_FAILURES))],
    );
}

/// Why a profile's document could not be computed or written last, and when.
pub fn failure(key: &Uuid) -> Option<(String, Option<i64>)> {
    let _us = as_ourselves();
    spi::one(
        "SELECT f.sqlstate, f.failed_at FROM profile_cache.failure AS f WHERE f.user_id = $1 ORDER BY f.failed_at DESC LIMIT 1",
        At::Active,
        &[Arg::uuid(Some(key))],
        |r| Some((r.text(1)?, r.timestamptz(2))),
    )
    .flatten()
}

/// Since when the oldest epoch is pending.
pub fn oldest_epoch() -> Option<i64> {
    let _us = as_ourselves();
    let sql = "SELECT min(p.created_at) FROM profile_cache.pending_epoch AS p";
    spi::one(sql, At::Active, &[], |r| r.timestamptz(1)).flatten()
}

/// Since when the oldest key is pending that is one of these, or may be: it has no hash, or is of none of the
/// sets that are known.
pub fn oldest_key(sets: &[i64], names: &[KeyHash]) -> Option<i64> {
    let numbers = |f: fn(&KeyHash) -> i64| Arg::int8s(&names.iter().map(f).collect::<Vec<_>>());
    let _us = as_ourselves();
    spi::one(
        "SELECT min(k.created_at) FROM profile_cache.pending_key AS k WHERE k.key_hash = 0 OR k.key_set <> ALL ($3) \
          OR (k.key_set, k.key_hash) IN (SELECT n.* FROM unnest($1, $2) AS n)",
        At::Active,
        &[numbers(|k| k.set), numbers(|k| k.hash), Arg::int8s(sets)],
        |r| r.timestamptz(1),
    )
    .flatten()
}

/// The profiles whose document could not be computed or written, and when last.
pub fn failures() -> Vec<(Uuid, String)> {
    let _us = as_ourselves();
    let sql = "SELECT f.user_id, max(f.failed_at)::text FROM profile_cache.failure AS f GROUP BY 1";
    spi::all(sql, At::New, &[], |r| r.uuid(1).zip(r.text(2))).into_iter().flatten().collect()
}

/// Profiles whose failure is to be tried again, at most so many.
pub fn failures_due(most: i32) -> Vec<Uuid> {
    let _us = as_ourselves();
    spi::all(
        "SELECT f.user_id FROM profile_cache.failure AS f GROUP BY 1 \
         HAVING bool_and(coalesce(f.retry_at <= now(), true)) ORDER BY 1 LIMIT $1",
        At::New,
        &[Arg::int8(Some(i64::from(most)))],
        |r| r.uuid(1),
    )
    .into_iter()
    .flatten()
    .collect()
}

/// Puts the next attempt off: by a minute, then by twice as long each time, up to a day.
pub fn postpone(keys: &[Uuid]) {
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.failure AS f SET attempts = f.attempts + 1, \
          retry_at = now() + LEAST(interval '1 day', interval '1 minute' * (2 ^ LEAST(f.attempts - 1, 11))) \
         WHERE f.user_id = ANY ($1)",
        &[Arg::uuids(keys)],
    );
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

/// The same for transactions that may be logical replication's: what its workers have under way, whatever
/// they hold, and what is prepared and holds one of these tables.
pub fn appliers(tables: &[Oid]) -> Vec<String> {
    let _us = as_ourselves();
    spi::all(
        "SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks AS l WHERE l.granted \
          AND (l.pid IN (SELECT s.pid FROM pg_catalog.pg_stat_get_activity(NULL) AS s \
                         WHERE s.backend_type LIKE 'logical replication%') \
           OR l.pid IS NULL AND l.locktype = 'relation' AND l.relation = ANY ($1) \
            AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d \
                              WHERE d.datname = pg_catalog.current_database()))",
        At::New,
        &[Arg::oids(tables)],
        |r| r.text(1).unwrap_or_default(),
    )
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
        At::New,
        &[Arg::texts(holders)],
        |r| r.int8(1),
    )
    .flatten()
    .unwrap_or(0)
}

/// What the reader's rule needs besides the rows, in one place.
pub struct Judge {
    pending: Pending,
    first: Option<i64>,
    now: i64,
    next_xid: u64,
}

impl Judge {
    /// In the active snapshot.
    pub fn new(a: &Attached) -> Judge {
        Judge::after(a, a.epochs.look())
    }

    /// The same where the active snapshot has been looked at already.
    pub fn after(a: &Attached, look: Look) -> Judge {
        let pending = if look.pending {
            Pending::load(At::Active, look.current)
        } else {
            Pending { current: look.current, ..Pending::default() }
        };
        let next_xid = if pending.epochs.is_empty() { 0 } else { xact::next_full_xid() };
        Judge { pending, first: a.trusted_from, now: xact::now(), next_xid }
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
        p.judge(l, Some(8), 50, 1000)
    }

    #[test]
    fn a_stamp_counts_only_within_the_attachment_s_epochs() {
        let p = pending(&[]);
        assert_eq!(judge(&p, &OK), Ok(()));
        for (epoch, miss) in
            [(None, Miss::Null), (Some(7), Miss::Foreign), (Some(13), Miss::Foreign)]
        {
            assert_eq!(judge(&p, &Looked { epoch, ..OK }), Err(miss));
        }
        assert_eq!(judge(&Pending::default(), &OK), Err(Miss::Foreign));
    }

    #[test]
    fn time_is_the_reader_s_now() {
        let p = pending(&[]);
        assert_eq!(judge(&p, &Looked { valid_until: Some(50), ..OK }), Err(Miss::Expired));
        assert_eq!(judge(&p, &Looked { valid_until: Some(51), ..OK }), Ok(()));
        assert_eq!(judge(&p, &Looked { updated_at: Some(51), ..OK }), Err(Miss::Future));
        assert_eq!(judge(&p, &Looked { updated_at: Some(50), ..OK }), Ok(()));
    }

    #[test]
    fn a_pending_epoch_concerns_older_stamps_until_a_pass_has_seen_the_row() {
        assert_eq!(judge(&pending(&[(None, None)]), &OK), Err(Miss::Pending));
        assert_eq!(judge(&pending(&[(Some(11), None)]), &OK), Err(Miss::Pending));
        assert_eq!(judge(&pending(&[(Some(10), None)]), &OK), Ok(()));
        assert_eq!(judge(&pending(&[(Some(11), Some(101))]), &OK), Ok(()));
        assert_eq!(judge(&pending(&[(Some(11), Some(100))]), &OK), Err(Miss::Pending));
        assert_eq!(judge(&pending(&[]), &Looked { named: true, ..OK }), Err(Miss::Pending));
    }

    #[test]
    fn what_is_not_looked_at_may_concern_anyone() {
        let p = Pending { overflow: true, ..pending(&[]) };
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
