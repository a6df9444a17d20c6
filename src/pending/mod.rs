//! What is not to be trusted: the current epoch, pending epochs, pending keys. Nobody else writes them, but refresh its
//! own progress with them. The rule of reading, which goes by them, is in `read`.
//!
//! Invariant: a row here commits with the change that it speaks of, so a snapshot that sees the
//! change sees the row. A pending epoch has no number until refresh gives it one in a transaction
//! that sees it: a stamp not smaller than that number was computed in a snapshot that saw the change.
//! A writer reads the current epoch and nothing else, so that writers do not conflict with each other
//! at SERIALIZABLE by what they add.
//!
//! Rules: W18, E1, E15, E16, E17, R4, D3.

mod numbers;

pub use numbers::{OVER, advance, assign, delete, delete_twins, passed};

use crate::attachment::{Attached, Naming};
use crate::definition::{Sql, by_column};
use crate::iso8601::UNIX_TO_POSTGRES;
use crate::pg::scan::KeyHash;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::value::Uuid;
use crate::pg::{Oid, catalog, locks, xact};
use crate::rights::{as_ourselves, home};
use crate::settings;
use crate::stats::{self, Counter};
use crate::xact_state;
use std::collections::HashSet;

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

impl PendingKeys {
    /// All of them in a snapshot, but for what is more than a look at the table should hold in memory.
    pub fn load(a: &Attached, at: Snapshot) -> PendingKeys {
        const MOST: usize = 100_000;
        let sets: Vec<i64> = a.naming.iter().map(|n| n.set).collect();
        let mut keys = PendingKeys::default();
        let _us = as_ourselves();
        spi::query(
            "SELECT k.key_set, k.key_hash FROM profile_cache.pending_key AS k LIMIT 100001",
            at,
            &[],
            |r| {
                let Some((set, hash)) = r.int8(1).zip(r.int8(2)) else {
                    keys.anyone = Some(Anyone::Unknown);
                    return;
                };
                if !sets.contains(&set) {
                    keys.anyone = Some(Anyone::Unknown);
                }
                keys.hashes.insert(KeyHash { set, hash });
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
    pub fn loose(a: &Attached, at: Snapshot) -> PendingKeys {
        let mut keys = PendingKeys::default();
        keys.load_loose(a, at);
        keys
    }

    fn load_loose(&mut self, a: &Attached, at: Snapshot) {
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
            |r| match r.texts(1).zip(r.texts(2)) {
                Some(key) => self.loose.push(key),
                None => self.anyone = Some(Anyone::Unknown),
            },
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

/// Makes the row of the current epoch where there is none: the first one, Unix time in microseconds, so that it can be
/// read as one and no stamp of before is within. Whether there was none.
pub fn first_epoch() -> bool {
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.epoch (current, trusted_from) VALUES ($1, $1) ON CONFLICT DO NOTHING",
        &[Arg::int8(Some(UNIX_TO_POSTGRES + xact::clock()))],
    ) > 0
}

/// Everything is to be computed anew. O(1), once a transaction.
pub fn invalidate_all(reason: &str) {
    xact_state::notify_all();
    if xact_state::distrust_everything() {
        insert_everything(reason, Everything::default());
    }
}

/// The same where the document's definition has changed, which older snapshots see at once (catalogs
/// are not theirs): no stamp is trusted in any of them until refresh has numbered this.
pub fn redefined(reason: &str) {
    xact_state::notify_all();
    xact_state::distrust_everything();
    if xact_state::redefine() {
        insert_everything(reason, Everything { redefined: true, ..Everything::default() });
    }
    tell_everybody();
}

/// The same where DDL could not be looked at, since another transaction had a lock that this takes: no
/// stamp is trusted until refresh, or attach(), has looked whether it concerns the document. `about`: the
/// objects. More than one row in a transaction, since each may turn out to concern nobody.
pub fn unseen(about: &[Oid]) {
    stats::count(Counter::PendingEpochs);
    xact_state::notify_all();
    xact_state::leave_work();
    {
        let _us = as_ourselves();
        spi::run(
            "INSERT INTO profile_cache.pending_epoch (redefined, apply, reason, about, horizon) VALUES (true, false, 'DDL', $1, $2)",
            &[Arg::oids(about), horizon()],
        );
    }
    tell_everybody();
}

/// The same where a table may no longer be a target of logical replication: its apply fires no statement
/// triggers, so nothing speaks of what it has under way, and refresh numbers this only when that is over.
pub fn applied(reason: &str) {
    xact_state::notify_all();
    xact_state::distrust_everything();
    insert_everything(reason, Everything { apply: true, ..Everything::default() });
}

/// Our own tables may have been out of sight, and what was written meanwhile noted nowhere: the definition counts as
/// changed, and refresh numbers this only when whoever may have written then is over.
pub fn out_of_sight(reason: &str) {
    xact_state::notify_all();
    xact_state::distrust_everything();
    insert_everything(reason, Everything { redefined: true, apply: true });
    tell_everybody();
}

/// Of a pending epoch that concerns everybody: columns of its row.
#[derive(Default)]
struct Everything {
    redefined: bool,
    apply: bool,
}

fn insert_everything(reason: &str, Everything { redefined, apply }: Everything) {
    stats::count(Counter::PendingEpochs);
    xact_state::leave_work();
    let _us = as_ourselves();
    spi::run(
        "INSERT INTO profile_cache.pending_epoch (redefined, apply, reason, horizon) VALUES ($1, $2, $3, $4)",
        &[Arg::bool(redefined), Arg::bool(apply), Arg::text(reason), horizon()],
    );
}

/// Every backend looks again at what is attached.
fn tell_everybody() {
    if let Some((home, _)) = home() {
        catalog::invalidate(home);
    }
}

/// The profiles that rows of a table lead to, by old and new values of its `columns`.
pub fn enqueue_link_change(
    a: &Attached,
    (schema, table): (&str, &str),
    columns: &[String],
    values: Vec<Vec<String>>,
) {
    xact_state::notify_all();
    xact_state::leave_work();
    if xact_state::everything_is_pending() {
        return;
    }
    stats::count(Counter::PendingEpochs);
    // What another version's SQL objects have no column for concerns everybody.
    let (definition, words) =
        if a.epochs.link.definition.is_some() { (", definition", ", $6") } else { ("", "") };
    let mut args = vec![
        Arg::text(schema),
        Arg::text(table),
        Arg::texts(columns),
        Arg::texts(&values.into_iter().flatten().collect::<Vec<_>>()),
        horizon(),
    ];
    args.extend((!words.is_empty()).then(|| Arg::int8(Some(a.words))));
    let _us = as_ourselves();
    spi::run(
        &format!(
            "INSERT INTO profile_cache.pending_epoch (redefined, apply, reason, link_schema, link_table, link_columns, link_values, horizon{definition}) \
             VALUES (false, false, 'rows changed', $1, $2, $3::pg_catalog.name[], $4, $5{words})"
        ),
        &args,
    );
}

/// What a pending epoch that is about to be written bears: the next transaction id, read with its table locked. So
/// whoever finds nobody with that lock knows of all that is to come that it has no less than the next id before. And no
/// less than what is written down: after a crash ids begin again at the last that was logged.
fn horizon() -> Arg {
    if let Some(table) = catalog::relation("profile_cache", "pending_epoch") {
        locks::lock_for_writing(table);
    }
    let _us = as_ourselves();
    let sql = "SELECT h.pending_from FROM profile_cache.horizon AS h";
    let known = spi::one(sql, Snapshot::Latest, &[], |r| r.int8(1)).flatten();
    Arg::int8(i64::try_from(xact::next_full_xid()).ok().max(known))
}

/// DDL that has been committed and that nobody has looked at.
pub struct Unseen {
    id: Uuid,
    pub about: Vec<Oid>,
}

/// What is committed and over ([`OVER`]).
pub fn unseen_ones() -> Vec<Unseen> {
    let _us = as_ourselves();
    let found = spi::all(
        &format!(
            "SELECT p.id, p.about::text[] FROM profile_cache.pending_epoch AS p WHERE p.about IS NOT NULL AND {}",
            OVER
        ),
        Snapshot::New,
        &[],
        |r| {
            let about = r.texts(2)?;
            let about = about.iter().filter_map(|o| o.parse().ok()).map(Oid::from_u32);
            Some(Unseen { id: r.uuid(1)?, about: about.collect() })
        },
    );
    catalog::accept_invalidations();
    found.into_iter().flatten().collect()
}

/// DDL that has been looked at since: `concerns` gets its number, the rest goes.
pub fn seen(concerns: &[&Unseen], rest: &[&Unseen]) {
    let ids = |list: &[&Unseen]| Arg::uuids(&list.iter().map(|u| u.id).collect::<Vec<_>>());
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.pending_epoch SET about = NULL WHERE id = ANY ($1)",
        &[ids(concerns)],
    );
    spi::run("DELETE FROM profile_cache.pending_epoch WHERE id = ANY ($1)", &[ids(rest)]);
}

/// DDL that nobody has looked at in another cluster was written down by numbers that may be other objects' here, as after
/// pg_upgrade: it counts as being about `all`, which everything is about. By who has the attachment's row locked.
pub fn of_elsewhere(all: Oid) {
    let _us = as_ourselves();
    spi::run(
        "UPDATE profile_cache.pending_epoch AS p SET about = array_append(p.about, $1) WHERE p.about IS NOT NULL",
        &[Arg::oid(all)],
    );
}

/// Nothing is attached any more, so that nothing is pending. DDL that nobody has looked at may concern who attaches next.
pub fn forget_everything() {
    xact_state::forget_pending();
    let _us = as_ourselves();
    let claims = catalog::relation("profile_cache", "claim").is_some();
    for all in claims.then_some("claim").into_iter().chain([
        "pending_key",
        "epoch_progress",
        "unmatched_key",
        "horizon",
        "pending_epoch WHERE about IS NULL",
    ]) {
        spi::run(&format!("DELETE FROM profile_cache.{all}"), &[]);
    }
}

/// Forgets what pending rows say of columns, which a table may no longer have: keys go, an epoch becomes everybody's,
/// and the caller has made everything pending. Rows that a refresh has in hand stay: it must not wait for DDL, nor DDL
/// for it.
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
    xact_state::notify_all();
    if xact_state::keys_named() > settings::max_immediate().max(1) {
        return invalidate_all(
            "more pending keys than profile_cache.max_immediate in one transaction",
        );
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
    stats::add(Counter::PendingKeys, values.len() as u64);
    xact_state::leave_work();
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

/// Whether there is a pending epoch whose first pass is not complete, or that is being passed once more.
pub fn unpassed() -> bool {
    let _us = as_ourselves();
    let sql = "SELECT FROM profile_cache.pending_epoch AS p WHERE NOT EXISTS (SELECT FROM profile_cache.epoch_progress AS d \
                WHERE d.epoch = p.epoch AND d.passed_xmin IS NOT NULL AND NOT d.running) LIMIT 1";
    spi::one(sql, Snapshot::New, &[], |_| ()).is_some()
}

/// Since when the oldest epoch is pending.
pub fn oldest_epoch() -> Option<i64> {
    let _us = as_ourselves();
    let sql = "SELECT min(p.created_at) FROM profile_cache.pending_epoch AS p";
    spi::one(sql, Snapshot::Active, &[], |r| r.timestamptz(1)).flatten()
}

/// Since when the oldest key is pending that is one of these, or may be: it has no hash, or is of none of the
/// sets that are known.
pub fn oldest_key(sets: &[i64], names: &[KeyHash]) -> Option<i64> {
    let numbers = |f: fn(&KeyHash) -> i64| Arg::int8s(&names.iter().map(f).collect::<Vec<_>>());
    let _us = as_ourselves();
    spi::one(
        "SELECT min(k.created_at) FROM profile_cache.pending_key AS k WHERE k.key_hash = 0 OR k.key_set <> ALL ($3) \
          OR (k.key_set, k.key_hash) IN (SELECT n.* FROM unnest($1, $2) AS n)",
        Snapshot::Active,
        &[numbers(|k| k.set), numbers(|k| k.hash), Arg::int8s(sets)],
        |r| r.timestamptz(1),
    )
    .flatten()
}

/// Whether something is pending that a transaction from `since` on has written; below `next` are all of them.
pub fn any_since(since: u64, next: u64) -> bool {
    let number = |id: u64| Arg::int8(i64::try_from(id).ok());
    let _us = as_ourselves();
    spi::one(
        "SELECT WHERE EXISTS (SELECT FROM profile_cache.pending_epoch AS p WHERE p.written_by::text::int8 >= $1) \
          OR EXISTS (SELECT FROM profile_cache.pending_key AS k WHERE ($2 - k.xmin::text::int8 & 4294967295) <= $2 - $1)",
        Snapshot::New,
        &[number(since), number(next)],
        |_| (),
    )
    .is_some()
}
