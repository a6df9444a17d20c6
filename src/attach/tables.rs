//! The tables to attach: finding them, refusing what is unfit, locking them.
//!
//! Invariant: what passes here is an ordinary permanent table of one owner, the key is proven unique,
//! and each member and dimension is tied by a valid foreign key. Nothing is changed.
//!
//! Rules: D4, D9, D10.

use super::default_view::{Found, TableColumn, TableKey, Tables};
use crate::attachment;
use crate::blockers::{Mode, blockers};
use crate::definition::{self, display, display_identifier, qualified};
use crate::error::{Error, missing};
use crate::pg::guard::setting;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog, tuple, xact};
use crate::proof::discover;
use crate::rights::as_ourselves;
use pgrx::pg_sys;

/// attach's arguments.
pub struct AttachRequest {
    pub profile: Option<Oid>,
    pub key: String,
    pub document: Option<Oid>,
    pub exclude: Vec<String>,
}

/// A relation and how to write its name.
pub struct Named {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    /// Quoted, for SQL; and as people write it.
    pub sql: String,
    pub display: String,
}

pub fn named(oid: Oid) -> Named {
    let Some((schema, name)) = catalog::relation_name(oid) else {
        Error::NoProfileTable(format!("with OID {oid}")).raise()
    };
    Named { oid, sql: qualified(&schema, &name), display: display(&schema, &name), schema, name }
}

/// Raises where PostgreSQL will not alter the table, since this transaction has changed rows of it that are still
/// to be checked.
pub fn refuse_events_pending(t: &Named) {
    if tuple::has_checks_queued(t.oid) {
        Error::EventsPending(t.display.clone()).raise();
    }
}

/// Locks the tables, all or none. A try, in which it may hold some and wait for others, is shorter than
/// deadlock_timeout: a transaction of the app's that meets us the other way round is let through and not
/// killed, and nobody queues behind us for long. Gives up after some seconds.
pub fn lock(exclusive: &[Named], others: &[Named]) {
    const PATIENCE: i64 = 3_000_000;
    /// lock_timeout, and a circle.
    const GIVEN_UP: [&str; 2] = ["55P03", "40P01"];
    let deadlock = milliseconds(c"deadlock_timeout").unwrap_or(1000);
    let callers = milliseconds(c"lock_timeout").filter(|t| *t > 0).unwrap_or(i64::MAX);
    let turn = (deadlock / 2).clamp(1, 500).min(callers);
    let until = xact::clock() + PATIENCE.min(callers.saturating_mul(1000));
    // The first waits for DDL under way, which may concern what is to be attached; the second for a step of
    // refresh, which has pending rows in hand.
    let ours =
        [("attachment", Mode::ShareRowExclusive), ("epoch_progress", Mode::ShareUpdateExclusive)];
    let ours: Vec<(Named, Mode)> = ours
        .into_iter()
        .filter_map(|(name, mode)| Some((named(catalog::relation("profile_cache", name)?), mode)))
        .collect();
    let wanted: Vec<(&Named, Mode)> = ours
        .iter()
        .map(|(t, mode)| (t, *mode))
        .chain(exclusive.iter().map(|t| (t, Mode::AccessExclusive)))
        .chain(others.iter().map(|t| (t, Mode::ShareRowExclusive)))
        .collect();
    loop {
        let ends = xact::clock() + turn * 1000;
        let locked = xact::attempt(|| {
            for (n, (t, mode)) in wanted.iter().enumerate() {
                let left = ((ends - xact::clock()) / 1000).max(1);
                // Who waits as long as deadlock_timeout has an autovacuum that is in the way give up, as any DDL has;
                // and where it is a circle, it is we who give way.
                let _us = as_ourselves()
                    .with(c"lock_timeout", &format!("{left}ms"))
                    .with(c"deadlock_timeout", &format!("{}ms", (turn / 4).max(1)));
                if n == 0 {
                    // Whoever takes both takes the row first.
                    spi::utility("SELECT FROM profile_cache.attachment FOR UPDATE");
                }
                spi::utility(&format!("LOCK TABLE {} IN {} MODE", t.sql, mode.sql()));
            }
        });
        match locked {
            Ok(()) => return,
            Err(failure) if GIVEN_UP.contains(&&*failure.sqlstate) && xact::clock() < until => {
                xact::sleep(10);
            }
            Err(failure) if GIVEN_UP.contains(&&*failure.sqlstate) => {
                let row = ours.first().map(|(t, _)| (t.oid, Mode::Exclusive));
                let wanted = wanted.iter().map(|(t, mode)| (t.oid, *mode)).chain(row);
                let wanted: Vec<(Oid, Mode)> = wanted.collect();
                Error::TablesBusy(blockers(&wanted)).raise()
            }
            Err(failure) => failure.raise(),
        }
    }
}

/// A setting of time, in milliseconds.
fn milliseconds(name: &std::ffi::CStr) -> Option<i64> {
    let text = setting(name)?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    digits.trim().parse::<i64>().ok().map(|n| n * factor)
}

/// Raises what makes a table unfit: not the caller's (or not the profile's owner's), not an ordinary
/// permanent table, partitioned, inherited, with forced row security.
pub fn refuse_unfit(t: &Named, user: Oid, profile_owner: Option<Oid>) {
    let _us = as_ourselves();
    let facts = spi::one(
        "SELECT c.relowner, CASE \
          WHEN c.relkind = 'p' OR c.relispartition THEN 'partitioned' \
          WHEN c.relkind <> 'r' THEN 'not a table' \
          WHEN c.oid < 16384 OR EXISTS (SELECT FROM pg_catalog.pg_depend AS d \
           WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
            AND d.deptype = 'e') THEN 'not yours' \
          WHEN c.relpersistence <> 'p' THEN 'not permanent' \
          WHEN EXISTS (SELECT FROM pg_catalog.pg_inherits AS i \
           WHERE i.inhrelid = c.oid OR i.inhparent = c.oid) THEN 'inherited' ELSE '' END, \
          c.relforcerowsecurity FROM pg_catalog.pg_class AS c WHERE c.oid = $1",
        Snapshot::New,
        &[Arg::oid(t.oid)],
        |r| (r.oid(1), r.text(2), r.bool(3)),
    );
    let name = t.display.clone();
    let Some((Some(owner), Some(fault), forced)) = facts else {
        Error::NoProfileTable(name).raise()
    };
    match fault.as_str() {
        "partitioned" => {
            Error::Partitioned { table: name.clone(), profile: profile_owner.is_none() }.raise()
        }
        "not a table" => Error::NotATable(name.clone()).raise(),
        "not yours" => Error::NotYours(name.clone()).raise(),
        "not permanent" => Error::NotPermanent(name.clone()).raise(),
        "inherited" => Error::Inherited(name.clone()).raise(),
        _ => {}
    }
    if !catalog::is_member_of(user, owner) {
        Error::NotOwner(name).raise();
    }
    if let Some(expected) = profile_owner
        && expected != owner
    {
        Error::OtherOwner {
            kind: "table".into(),
            name,
            owner: catalog::role_name(owner),
            expected: catalog::role_name(expected),
            relation: true,
        }
        .raise();
    }
    if forced == Some(true) {
        Error::ForcedRowSecurity(name).raise();
    }
}

/// The number of the profile table's column `key`, which can be the key.
pub fn check_key(profile: &Named, key: &str) -> i16 {
    let _us = as_ourselves();
    let (table, key_sql) = (profile.display.clone(), display_identifier(key));
    let Some(number) = catalog::column_number(profile.oid, key) else {
        Error::NoKeyColumn { table, key: key_sql }.raise()
    };
    if ["document", "valid_until"].contains(&key) {
        Error::KeyName(key_sql).raise();
    }
    let oid = catalog::column_type(profile.oid, number);
    if oid != pg_sys::UUIDOID {
        let is = spi::one(
            "SELECT pg_catalog.format_type($1, NULL)",
            Snapshot::New,
            &[Arg::oid(oid)],
            |r| r.text(1),
        );
        let is = is.flatten().unwrap_or_else(|| missing("a type's name"));
        Error::KeyNotUuid { table, key: key_sql, is }.raise();
    }
    let args = || [Arg::oid(profile.oid), Arg::int8(Some(number.into()))];
    if spi::one(attachment::UNIQUE_KEY, Snapshot::New, &args(), |_| ()).is_none() {
        let found = spi::one(
            "SELECT i.indexrelid::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_index AS i \
             WHERE i.indrelid = $1 AND i.indisunique AND i.indkey[0] = $2 ORDER BY 1 LIMIT 1",
            Snapshot::New,
            &args(),
            |r| r.text(1),
        );
        Error::KeyNotUnique { table, key: key_sql, found: found.flatten() }.raise();
    }
    number
}

/// The conventional tables that stand beside the profile table.
pub fn conventional_tables(profile: &Named) -> Vec<Named> {
    ["user_subscription", "subscription_plan", "user_role", "role"]
        .iter()
        .filter(|name| **name != profile.name)
        .filter_map(|name| catalog::relation(&profile.schema, name))
        .map(named)
        .collect()
}

fn columns(oid: Oid) -> Vec<TableColumn> {
    spi::all(
        "SELECT a.attname::text, b.typname::text, b.typcollation <> 0, EXISTS \
          (SELECT FROM pg_catalog.pg_index AS i WHERE i.indrelid = a.attrelid AND i.indisprimary \
           AND a.attnum = ANY (i.indkey)) \
         FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid \
         JOIN pg_catalog.pg_type AS b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END \
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        Snapshot::New,
        &[Arg::oid(oid)],
        |r| TableColumn {
            name: r.text(1).unwrap_or_else(|| missing("a column's name")),
            r#type: r.text(2).unwrap_or_else(|| missing("a type's name")),
            collatable: r.bool(3) == Some(true),
            primary: r.bool(4) == Some(true),
        },
    )
}

fn found(t: &Named) -> Found {
    Found { schema: t.schema.clone(), name: t.name.clone(), columns: columns(t.oid) }
}

/// Describes the conventional tables. One that lacks a column of its part is left out; one that has
/// the columns but not the foreign key is refused.
pub fn find_tables(profile: &Named, others: &[Named], request: &AttachRequest) -> Tables {
    let _us = as_ourselves();
    let all: Vec<Oid> = others.iter().map(|t| t.oid).chain([profile.oid]).collect();
    let keys = discover::foreign_keys(&all);
    let table = |name: &str, needed: &[&str]| {
        let t = others.iter().find(|t| t.name == name)?;
        let f = found(t);
        needed.iter().all(|c| f.has(c)).then_some((t, f))
    };
    let tie = |from: &Named, column: &str, to: &Named| {
        let between = keys.iter().filter(|fk| fk.from == from.oid && fk.to == to.oid);
        let one = between.filter_map(|fk| match &fk.columns[..] {
            [one] if one.from_name == column => Some(one),
            _ => None,
        });
        let Some(fk) = one.into_iter().next() else {
            Error::NoForeignKey { table: from.display.clone(), to: to.display.clone() }.raise()
        };
        // Under the pinned search_path a plain = is the built-in one.
        let built_in = fk.operator == definition::BUILT_IN_EQUALS;
        let to_profile = to.oid == profile.oid;
        let collation = if to_profile { &fk.from_collation } else { &fk.to_collation };
        TableKey {
            column: fk.from_name.clone(),
            references: fk.to_name.clone(),
            equals: if built_in { "=".into() } else { fk.operator.clone() },
            collation: collation.clone(),
        }
    };
    let profile_found = found(profile);
    refuse_unknown_exclude(profile, &profile_found, request);
    let subscription = table("user_subscription", &["user_id", "plan_id", "status"]);
    if let Some((t, f)) = &subscription {
        refuse_timeless_end(t, f);
    }
    let user_role = table("user_role", &["user_id", "role_id"]);
    // What a member's row leads to, where both are there.
    let behind = |member: &Option<(&Named, Found)>, column: &str, name: &str, needed: &[&str]| {
        let (from, _) = member.as_ref()?;
        let (to, f) = table(name, needed)?;
        Some((f, tie(from, column, to)))
    };
    let plan = behind(&subscription, "plan_id", "subscription_plan", &[]);
    let role = behind(&user_role, "role_id", "role", &["name"]);
    let member = |m: Option<(&Named, Found)>| m.map(|(t, f)| (f, tie(t, "user_id", profile)));
    Tables {
        key: request.key.clone(),
        exclude: request.exclude.clone(),
        subscription: member(subscription),
        plan,
        user_role: if role.is_some() { member(user_role) } else { None },
        role,
        profile: profile_found,
    }
}

fn refuse_unknown_exclude(profile: &Named, found: &Found, request: &AttachRequest) {
    if let Some(unknown) = request.exclude.iter().find(|c| !found.has(c)) {
        let column = display_identifier(unknown);
        Error::UnknownExclude { table: profile.display.clone(), column }.raise();
    }
}

/// Raises where a subscription's end is no time.
fn refuse_timeless_end(t: &Named, found: &Found) {
    if let Some(end) = found.column("current_period_end")
        && !["timestamptz", "timestamp", "date"].contains(&end.r#type.as_str())
    {
        Error::WrongType {
            table: t.display.clone(),
            column: end.name.clone(),
            is: end.r#type.clone(),
            wanted: "timestamptz, timestamp or date",
        }
        .raise();
    }
}
