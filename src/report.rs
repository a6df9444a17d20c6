//! verify and status: what is true of the cache, from the tables and the catalogs.
//!
//! Invariant: both judge rows by the reader's own rule ([`Judge`]); neither keeps more than a page of
//! rows in memory.

use crate::attachment::{self, Attached, Distrust, State};
use crate::error::check_interrupts;
use crate::pending::{Judge, Looked, PendingKeys};
use crate::pg::catalog;
use crate::pg::identity::Pinned;
use crate::pg::spi::{self, Arg, At};
use crate::pg::value::{Uuid, Value, scratch};
use crate::rights::{as_ourselves, as_owner};
use crate::routes::display;
use crate::session;
use crate::settings;

const PAGE: i64 = 500;
/// Blocks of the profile table that `status` reads at most; of a larger one it takes a sample.
const BLOCKS: f64 = 2000.0;

/// Compares stored documents that a reader would be served, and what it would be served, with the
/// view; `sample`: that many profiles, from a random place in key order on. Reports problems.
pub fn verify(
    a: &Attached,
    sample: Option<i64>,
    mut report: impl FnMut(&Uuid, &str, Option<Value>, Option<Value>),
) {
    let _pinned = Pinned::new();
    let judge = Judge::new(a);
    let keys = PendingKeys::load(a, At::Active);
    let sql = a.sql.page(&keys.named(a, 3).0);
    let mut left = sample.unwrap_or(i64::MAX);
    let mut after = sample.and_then(|_| random_key(a));
    let mut wrapped = sample.is_none();
    let start = after;
    while left > 0 {
        check_interrupts();
        let (n, last) = scratch(|| {
            let args = [Arg::uuid(after.as_ref()), Arg::int8(Some(left.min(PAGE)))];
            let until = start.filter(|_| wrapped && sample.is_some());
            page(a, &judge, &keys, &sql, args, until, &mut report)
        });
        left -= n;
        after = last;
        let past_start = wrapped && start.is_some() && after > start;
        if after.is_none() || past_start {
            if wrapped {
                break;
            }
            wrapped = true;
        }
    }
}

/// Compares one page, up to key `until`; the number of its rows and its last key.
fn page(
    a: &Attached,
    judge: &Judge,
    keys: &PendingKeys,
    sql: &str,
    args: [Arg; 2],
    until: Option<Uuid>,
    report: &mut impl FnMut(&Uuid, &str, Option<Value>, Option<Value>),
) -> (i64, Option<Uuid>) {
    let args: Vec<Arg> = args.into_iter().chain(keys.named(a, 3).1).collect();
    let rows = {
        let _owner = as_owner(a.owner);
        spi::all(sql, At::Active, &args, |r| {
            (
                Looked::from_row(r, a, |names| keys.any(names)),
                r.jsonb(8),
                r.jsonb(9),
                r.int8(10).unwrap_or(0),
            )
        })
    };
    for (looked, stored, expected, n) in &rows {
        let Some(key) = looked
            .key
            .filter(|key| until.is_none_or(|until| *key <= until))
        else {
            continue;
        };
        let trusted = a.distrust.is_none() && !session::unsure() && judge.of(looked).is_ok();
        if *n > 1 {
            report(
                &key,
                "the view has more than one row for it",
                None,
                *expected,
            );
        } else if trusted && !same(*stored, *expected) {
            report(
                &key,
                "the cached document differs from the view's",
                *stored,
                *expected,
            );
        }
    }
    (rows.len() as i64, rows.last().and_then(|r| r.0.key))
}

/// Equal to the byte: jsonb's own equality takes 1.0 for 1.00.
fn same(a: Option<Value>, b: Option<Value>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.same_image(b),
        (None, None) => true,
        _ => false,
    }
}

/// A key of the table's own, at random: from a few blocks of it.
fn random_key(a: &Attached) -> Option<Uuid> {
    let _owner = as_owner(a.owner);
    let share = (20.0 / blocks(a).max(1) as f64).min(1.0);
    spi::one(
        &a.sql.random_key(),
        At::Active,
        &[Arg::float4(100.0 * share as f32)],
        |r| r.uuid(1),
    )
    .flatten()
}

fn blocks(a: &Attached) -> i64 {
    spi::one(
        "SELECT pg_catalog.pg_relation_size($1) OPERATOR(pg_catalog./) \
         pg_catalog.current_setting('block_size')::pg_catalog.int8",
        At::Active,
        &[Arg::oid(a.profile)],
        |r| r.int8(1),
    )
    .flatten()
    .unwrap_or(0)
}

/// Rows, cached, stale; and whether they were counted or estimated.
struct Counts {
    rows: i64,
    cached: i64,
    stale: i64,
    exact: bool,
}

fn counts(a: &Attached) -> Counts {
    let judge = Judge::new(a);
    let keys = PendingKeys::load(a, At::Active);
    let (named, args) = keys.named(a, 2);
    let _owner = as_owner(a.owner);
    // As the planner estimates: the last ANALYZE's rows a block, times the blocks now.
    let blocks = blocks(a);
    let estimate = spi::one(
        "SELECT CASE WHEN c.reltuples >= 0 AND c.relpages > 0 \
          THEN (c.reltuples / c.relpages * $2)::int8 END FROM pg_catalog.pg_class AS c WHERE c.oid = $1",
        At::Active,
        &[Arg::oid(a.profile), Arg::int8(Some(blocks))],
        |r| r.int8(1),
    )
    .flatten();
    let share = (BLOCKS / blocks.max(1) as f64).min(1.0);
    let mut all = vec![Arg::float4(100.0 * share as f32)];
    all.extend(args);
    let (mut rows, mut cached) = (0, 0);
    spi::query(&a.sql.sampled(&named), At::Active, &all, |r| {
        rows += 1;
        let looked = Looked::from_row(r, a, |names| keys.any(names));
        cached += i64::from(a.distrust.is_none() && judge.of(&looked).is_ok());
    });
    let exact = share >= 1.0;
    if !exact {
        let sampled = rows.max(1) as f64;
        rows = estimate.unwrap_or((rows as f64 / share).round() as i64);
        cached = (cached as f64 / sampled * rows as f64).round() as i64;
    }
    Counts {
        rows,
        cached,
        stale: rows - cached,
        exact,
    }
}

/// The columns of `profile_cache.status`, in order.
pub fn status() -> Vec<Option<Value>> {
    let state = attachment::locked();
    let mut warnings: Vec<String> = vec![];
    if !settings::enabled() {
        warnings.push("profile_cache.enabled is off in this session: reads use the view".into());
    }
    let none = || None::<Value>;
    let (mut profile, mut document, mut tables, mut disabled) = (none(), none(), none(), none());
    let mut count = None;
    match &state {
        State::None => {
            warnings.push("nothing is attached: run SELECT profile_cache.attach()".into())
        }
        State::Gone(gone) => warnings.push(format!(
            "{}: run SELECT profile_cache.attach() again, with the same arguments, or detach()",
            gone.clone().error().message()
        )),
        State::Ready(a) => {
            let name = |oid| catalog::relation_name(oid).map(|(s, n)| display(&s, &n));
            profile = name(a.profile).and_then(|n| Value::text(&n));
            document = name(a.document).and_then(|n| Value::text(&n));
            let names: Vec<String> = a
                .definition
                .tables
                .iter()
                .map(|t| display(&t.schema, &t.name))
                .collect();
            tables = Value::texts(&names);
            match &a.distrust {
                Some(Distrust::Triggers(missing)) => {
                    disabled = Value::texts(missing);
                    warnings.push(
                        "triggers are missing or not ENABLE ALWAYS, so reads use the view: run \
                         profile_cache.attach() again, with the same arguments"
                            .into(),
                    );
                }
                Some(Distrust::Problem(why)) => {
                    warnings.push(format!(
                        "reads use the view: {why}; run profile_cache.attach() again, with the same arguments"
                    ));
                }
                None => {}
            }
            if a.epochs.current().is_none() {
                warnings.push(
                    "the current epoch is lost, so reads use the view: run profile_cache.attach() again, with the \
                     same arguments, and refresh()"
                        .into(),
                );
            }
            count = Some(counts(a));
        }
    }
    let us = !matches!(state, State::None);
    let pending = if us {
        pending_numbers()
    } else {
        Default::default()
    };
    if pending.failures > 0 {
        warnings.push(format!(
            "the document of {} profile(s) could not be computed or written, last with SQLSTATE {}: SELECT * FROM profile_cache.failure",
            pending.failures,
            pending.sqlstate.as_deref().unwrap_or("?")
        ));
    }
    for name in disabled_event_triggers() {
        warnings.push(format!(
            "event trigger {name} is not ENABLE ALWAYS, so DDL may go unnoticed: enable it, then run \
             SELECT profile_cache.invalidate_all()"
        ));
    }
    let int = |n: i64| us.then(|| Value::int8(n));
    vec![
        profile,
        document,
        tables,
        count.as_ref().map(|c| Value::int8(c.rows)),
        count.as_ref().map(|c| Value::int8(c.cached)),
        count.as_ref().map(|c| Value::int8(c.stale)),
        count.as_ref().map(|c| Value::bool(c.exact)),
        int(pending.keys),
        int(pending.epochs),
        pending.oldest.map(Value::timestamptz),
        Value::texts(&pending.holders),
        disabled.or_else(|| Value::texts(&[])),
        int(pending.failures),
        Some(Value::bool(settings::enabled())),
        Some(Value::bool(settings::preloaded())),
        Value::text(
            "none: this version has no background worker; schedule CALL profile_cache.refresh()",
        ),
        Value::texts(&warnings),
    ]
}

fn disabled_event_triggers() -> Vec<String> {
    let _us = as_ourselves();
    spi::all(
        "SELECT t.evtname::text FROM pg_event_trigger AS t JOIN pg_proc AS f ON f.oid = t.evtfoid \
         WHERE f.pronamespace = 'profile_cache'::regnamespace AND t.evtenabled <> 'A' ORDER BY 1",
        At::Active,
        &[],
        |r| r.text(1).unwrap_or_default(),
    )
}

#[derive(Default)]
struct Numbers {
    keys: i64,
    epochs: i64,
    oldest: Option<i64>,
    holders: Vec<String>,
    failures: i64,
    sqlstate: Option<String>,
}

fn pending_numbers() -> Numbers {
    let _us = as_ourselves();
    spi::one(
        "SELECT pg_catalog.count(*) FILTER (WHERE p.kind = 'key'), pg_catalog.count(*) FILTER (WHERE p.kind = 'epoch'), \
          pg_catalog.min(p.created_at), \
          (SELECT pg_catalog.count(DISTINCT f.user_id) FROM profile_cache.failure AS f), \
          (SELECT f.sqlstate FROM profile_cache.failure AS f ORDER BY f.failed_at DESC LIMIT 1), \
          ARRAY(SELECT coalesce('prepared transaction ' || max(x.gid), 'pid ' || max(l.pid), h.v) \
           FROM (SELECT pg_catalog.unnest(d.holders) FROM profile_cache.drain AS d \
                 UNION SELECT pg_catalog.unnest(b.holders) FROM profile_cache.absent AS b) AS h(v) \
           JOIN pg_catalog.pg_locks AS l ON l.virtualtransaction = h.v \
           LEFT JOIN pg_catalog.pg_prepared_xacts AS x ON x.transaction = l.transactionid \
           GROUP BY h.v ORDER BY 1) \
         FROM profile_cache.pending AS p",
        At::Active,
        &[],
        |r| Numbers {
            keys: r.int8(1).unwrap_or(0),
            epochs: r.int8(2).unwrap_or(0),
            oldest: r.timestamptz(3),
            failures: r.int8(4).unwrap_or(0),
            sqlstate: r.text(5),
            holders: r.texts(6).unwrap_or_default(),
        },
    )
    .unwrap_or_default()
}
