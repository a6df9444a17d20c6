//! Makes the resolved attachment from what attach() recorded and from the catalogs as they are now.
//!
//! Invariant: what cannot be resolved or has become unsafe is said, never guessed. Whatever comes out of it, the
//! relations that it was read from come with it: a change of theirs drops it.
//!
//! Rules: E16, R10, D11.

use super::attached::{Attached, CacheColumns, Degraded, Gone, Naming, State, UsedLink, UsedTable};
use super::health::{
    UNIQUE_KEY, expiry_indexed, not_unique, triggers_off, unhealthy, write_may_fail,
};
use crate::definition::{self, Definition, Sql, Step, qualified};
use crate::error::Error;
use crate::pg::scan::{self, Epochs, Keys, LinkColumns, Progress, UniqueIndexLookup};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::trigger::Column;
use crate::pg::{Oid, catalog};
use crate::proof::reach::{self, Reached};
use crate::rights::{as_ourselves, home};
use pgrx::pg_sys::{INT8OID, JSONBOID, TIMESTAMPTZOID, UUIDOID};
use std::cell::OnceCell;
use std::rc::Rc;

/// The layout of our tables that this library knows: what `profile_cache.layout()` returns.
const LAYOUT: i64 = 1;

/// The attachment as it is now, and the relations whose change may make it another.
pub(super) fn read() -> (State, Vec<Oid>) {
    let Some((home, _)) = home() else {
        return (State::None, vec![]);
    };
    if let Some(gone) = other_layout() {
        return (State::Gone(gone), vec![home]);
    }
    let _us = as_ourselves();
    let mut watched = vec![home];
    let state = match record() {
        Some(record) => match attached(record, &mut watched) {
            Ok(attached) => State::Ready(Rc::new(attached)),
            Err(other) => other,
        },
        None => State::None,
    };
    (state, watched)
}

/// Where our tables are not as this library knows them: the library and the SQL objects are of different versions.
pub fn other_layout() -> Option<Gone> {
    let _us = as_ourselves();
    let layout =
        spi::one("SELECT profile_cache.layout()::int8", Snapshot::Latest, &[], |r| r.int8(1))
            .flatten();
    (layout != Some(LAYOUT)).then_some(Gone::Layout(layout))
}

/// What stands in our tables about it.
struct Record {
    profile: Oid,
    document: Oid,
    definition: String,
    problem: Option<String>,
    /// Unless it says no, reading the view could run another role's code.
    is_unsafe: Option<bool>,
    trusted_from: Option<i64>,
    /// There has been DDL that nobody has looked at.
    unseen: bool,
}

fn record() -> Option<Record> {
    spi::one(
        "SELECT a.profile::oid, a.document::oid, a.definition::text, a.problem, a.unsafe, \
          (SELECT e.trusted_from FROM profile_cache.epoch AS e WHERE NOT EXISTS \
            (SELECT FROM profile_cache.pending_epoch AS p WHERE p.redefined AND p.epoch IS NULL)), \
          EXISTS (SELECT FROM profile_cache.pending_epoch AS p WHERE p.about IS NOT NULL) \
         FROM profile_cache.attachment AS a",
        Snapshot::Latest,
        &[],
        |r| {
            Some(Record {
                profile: r.oid(1)?,
                document: r.oid(2)?,
                definition: r.text(3)?,
                problem: r.text(4),
                is_unsafe: r.bool(5),
                trusted_from: r.int8(6),
                unseen: r.bool(7) != Some(false),
            })
        },
    )
    .flatten()
}

/// What is recorded, resolved; or the state where it cannot be used at all. Adds to `watched` as it goes.
fn attached(record: Record, watched: &mut Vec<Oid>) -> Result<Attached, State> {
    let Record { profile, document, trusted_from, .. } = record;
    if let Some(encoding) = catalog::other_encoding() {
        return Err(State::Gone(Gone::Encoding(encoding)));
    }
    watched.extend([profile, document]);
    watched.extend(our_relations());
    let sql = |oid| catalog::relation_name(oid).map(|(s, t)| qualified(&s, &t));
    let profile_name = sql(profile).ok_or(State::Gone(Gone::Profile))?;
    let document_name = sql(document).ok_or(State::Gone(Gone::Document))?;
    // Whoever owns what the view reads now, whether or not an event trigger told us: REASSIGN OWNED
    // fires none. A change of a view's owner drops this copy, nested views' too.
    let relations = relations_of(document);
    watched.extend(&relations);
    let definition = serde_json::from_str::<Definition>(&record.definition).ok();
    if let Some(gone) = unsafe_to_read(&record, definition.as_ref(), &relations) {
        return Err(State::Gone(gone));
    }
    let Some(definition) = definition.filter(Definition::is_only_names) else {
        return Err(State::Gone(Gone::Definition));
    };
    let (Some((key, columns)), Some(owner)) =
        (key_and_columns(profile, &definition), catalog::owner(profile))
    else {
        return Err(State::Gone(Gone::Columns));
    };
    let (epochs, keys) = our_tables().ok_or(State::None)?;
    let naming = naming(profile, &definition);
    let mut sets: Vec<i64> = naming.iter().map(|n| n.set).collect();
    sets.sort_unstable();
    let plain = naming.iter().filter(|n| n.plain);
    let names = plain.flat_map(|n| n.step.column_names()).collect();
    let (tables, degraded) = tables(record.problem, profile, key, &definition);
    watched.extend(tables.iter().map(|t| t.oid));
    Ok(Attached {
        profile,
        sql: Sql::new(profile_name.clone(), document_name, &definition, names),
        profile_name,
        owner,
        document,
        key,
        columns,
        compared: columns.all().map(|number| Column::of(profile, number)),
        read: read_relations(profile, document, relations, &tables),
        tables,
        trusted_from,
        degraded,
        probe: probe(profile, key),
        epochs,
        keys,
        naming,
        sets,
        foreign_indexes: reach::foreign_indexes(profile),
        write_may_fail: write_may_fail(profile, columns),
        expiry_indexed: expiry_indexed(profile, columns.valid_until),
        words: scan::hash(&[definition.words()]),
        definition,
    })
}

/// Those of our own relations whose numbers the copy holds.
fn our_relations() -> Vec<Oid> {
    let ours = [
        "epoch",
        "pending_epoch",
        "pending_epoch_horizon",
        "horizon",
        "epoch_progress",
        "epoch_progress_pkey",
        "pending_key",
        "pending_key_probe",
    ];
    ours.iter().filter_map(|name| catalog::relation("profile_cache", name)).collect()
}

/// Whether reading the view could run another role's code, and why. `relations`: what the view reads.
fn unsafe_to_read(
    record: &Record,
    definition: Option<&Definition>,
    relations: &[Oid],
) -> Option<Gone> {
    let &Record { profile, document, ref problem, is_unsafe, unseen, .. } = record;
    let owners = |oid: &Oid| catalog::owner(*oid) == catalog::owner(profile);
    // What a definition says that has a problem is of an earlier view; so may one be where nobody has
    // looked at what DDL has changed.
    let ask = problem.is_some()
        || unseen
        || !relations.iter().all(owners)
        || definition.is_none_or(|d| d.own_code)
        || Reached::plans_own_code(relations);
    if ask
        && let Err(e) = Reached::by_view(profile, document).check(profile)
        && let Error::Unsafe { why, hint } = e.for_readers()
    {
        return Some(Gone::Unsafe { why, hint });
    }
    // Written down, and what is reached now is safe: where DDL waits to be looked at, that may be what has made it so, and
    // refresh must get as far as to look. What has a problem is read from the view.
    if is_unsafe != Some(false) && !(unseen && problem.is_some()) {
        let unsaid = || "nothing says why any more".to_owned();
        let why = problem.clone().unwrap_or_else(unsaid);
        return Some(Gone::Unsafe { why, hint: None });
    }
    None
}

/// The numbers of the key column and of the four columns, which have the types that they should have.
fn key_and_columns(profile: Oid, definition: &Definition) -> Option<(i16, CacheColumns)> {
    let of_type = |name: &str, oid: Oid| {
        catalog::column_number(profile, name).filter(|n| catalog::column_type(profile, *n) == oid)
    };
    let columns = definition::COLUMNS.map(|(name, _)| name);
    let types = [JSONBOID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID];
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| of_type(columns[i], types[i]));
    let columns = CacheColumns { document: a?, valid_until: b?, epoch: c?, updated_at: d? };
    Some((of_type(&definition.key, UUIDOID)?, columns))
}

/// The used tables, none where one cannot be resolved; and why no stored document may be trusted.
fn tables(
    problem: Option<String>,
    profile: Oid,
    key: i16,
    definition: &Definition,
) -> (Vec<UsedTable>, Option<Degraded>) {
    let tables = match resolve(definition, profile) {
        Ok(tables) => tables,
        Err(missing) => {
            return (vec![], Some(Degraded::Problem(format!("{missing} does not exist"))));
        }
    };
    let degraded = triggers_off(profile, &tables)
        .or(problem.map(Degraded::Problem))
        .or_else(|| unhealthy(profile, key, &tables))
        .or_else(|| not_unique(definition, &tables));
    (tables, degraded)
}

/// The key, and the members' steps, one for each set of referenced columns; with the columns' types.
fn naming(profile: Oid, d: &Definition) -> Vec<Naming> {
    let key = Step::profile(&d.key, definition::BUILT_IN_EQUALS);
    let mut found: Vec<(Step, Vec<String>)> = vec![(key, vec![definition::UUID.into()])];
    for link in d.tables.iter().flat_map(|t| &t.links) {
        if let Some(step) = link.direct()
            && !found.iter().any(|(s, _)| s.column_names() == step.column_names())
        {
            found.push((step.clone(), link.target_types()));
        }
    }
    found.into_iter().map(|(step, types)| Naming::of(profile, step, types)).collect()
}

/// Tables, columns and types by their names; or the name that is missing.
fn resolve(d: &Definition, profile: Oid) -> Result<Vec<UsedTable>, String> {
    let column = |table: Oid, name: &str| -> Result<Column, String> {
        let number = catalog::column_number(table, name).ok_or(format!("column {name}"))?;
        Ok(Column::of(table, number))
    };
    d.tables
        .iter()
        .map(|t| {
            let display = qualified(&t.schema, &t.name);
            let oid = catalog::relation(&t.schema, &t.name).ok_or(format!("table {display}"))?;
            let columns = |names: &[String]| -> Result<Vec<Column>, String> {
                names.iter().map(|c| column(oid, c)).collect()
            };
            let links = t
                .links
                .iter()
                .map(|l| {
                    // None but for a member.
                    let targets = l.direct().map(Step::column_names).unwrap_or_default();
                    let targets = targets.iter().map(|c| Ok(column(profile, c)?.number));
                    let targets = targets.collect::<Result<Vec<i16>, String>>()?;
                    let own = columns(&l.column_names())?;
                    let probe = match (&own[..], &targets[..]) {
                        ([c], [t]) if c.oid == catalog::column_type(profile, *t) => {
                            probe(profile, *t)
                        }
                        _ => None,
                    };
                    Ok(UsedLink {
                        probe,
                        has_enum: own.iter().any(|c| catalog::is_enum(c.oid)),
                        columns: own,
                        watched: columns(&l.watched)?,
                        targets,
                        walk: OnceCell::new(),
                        link: l.clone(),
                    })
                })
                .collect::<Result<_, String>>()?;
            Ok(UsedTable { oid, schema: t.schema.clone(), name: t.name.clone(), links })
        })
        .collect()
}

/// The same, at any time.
pub fn relations_of_view(document: Oid) -> Vec<Oid> {
    let _us = as_ourselves();
    relations_of(document)
}

/// The view, those nested in it, and what they read.
fn relations_of(document: Oid) -> Vec<Oid> {
    spi::all(
        "WITH RECURSIVE nested AS (SELECT $1 AS oid UNION SELECT d.refobjid FROM nested AS n \
          JOIN pg_catalog.pg_rewrite AS r ON r.ev_class = n.oid AND r.ev_type = '1' \
          JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
           AND d.refclassid = 'pg_class'::regclass) \
         SELECT n.oid FROM nested AS n",
        Snapshot::Latest,
        &[Arg::oid(document)],
        |r| r.oid(1),
    )
    .into_iter()
    .flatten()
    .collect()
}

/// What computing reads: these relations, the used tables, and their indexes.
///
/// Beside them the relations of row types: whoever prints a row opens its type's. They are looked for where nothing is
/// written down by this cluster's numbers, as after pg_upgrade.
fn read_relations(
    profile: Oid,
    document: Oid,
    relations: Vec<Oid>,
    tables: &[UsedTable],
) -> Vec<Oid> {
    let tables: Vec<Oid> = tables.iter().map(|t| t.oid).collect();
    let oids = |sql: &str, args: &[Arg]| spi::all(sql, Snapshot::Latest, args, |r| r.oid(1));
    let indexes = oids(
        "SELECT i.indexrelid FROM pg_catalog.pg_index AS i WHERE i.indrelid = ANY ($1)",
        &[Arg::oids(&tables)],
    );
    let (server, database) = catalog::place();
    // Without a relation: the database, which stands there beside what is written down for it.
    let mut rows = oids(
        "SELECT t.typrelid FROM profile_cache.reached AS r LEFT JOIN pg_catalog.pg_type AS t \
          ON t.oid = r.objid AND t.typrelid <> 0 AND r.classid = 'pg_catalog.pg_type'::pg_catalog.regclass \
         WHERE r.server = $1 AND (t.oid IS NOT NULL OR r.objid = $2 AND r.classid = 'pg_catalog.pg_database'::pg_catalog.regclass)",
        &[Arg::int8(Some(server)), Arg::oid(database)],
    );
    if rows.is_empty() {
        rows = oids(
            "SELECT t.typrelid FROM pg_catalog.pg_type AS t WHERE t.oid = ANY ($1) AND t.typrelid <> 0",
            &[Arg::oids(&Reached::by_view(profile, document).types())],
        );
    }
    let mut read = relations;
    for row in rows.into_iter().flatten() {
        if !read.contains(&row) {
            read.push(row);
        }
    }
    read.retain(|r| !tables.contains(r));
    read.extend(indexes.into_iter().flatten());
    read.extend(tables);
    read
}

/// How to find a profile by one unique column.
fn probe(profile: Oid, column: i16) -> Option<UniqueIndexLookup> {
    // An index built over rows whose HOT chains did not fit it is not for older snapshots.
    let index = spi::one(
        &format!(
            "{UNIQUE_KEY} AND NOT i.indcheckxmin AND EXISTS (SELECT FROM pg_catalog.pg_opclass AS o \
             WHERE o.oid = i.indclass[0] AND o.opcdefault AND o.opcnamespace = 'pg_catalog'::regnamespace) LIMIT 1"
        ),
        Snapshot::Latest,
        &[Arg::oid(profile), Arg::int8(Some(column.into()))],
        |r| r.oid(1),
    );
    UniqueIndexLookup::new(index.flatten()?, catalog::column_type(profile, column))
}

/// Where our own tables stand.
fn our_tables() -> Option<(Epochs, Keys)> {
    let relation = |name| catalog::relation("profile_cache", name);
    let (table, pending, keys) =
        (relation("epoch")?, relation("pending_epoch")?, relation("pending_key")?);
    let (horizon, progress) = (relation("horizon")?, relation("epoch_progress")?);
    let column = |name| catalog::column_number(pending, name);
    let epochs = Epochs {
        table,
        current: catalog::column_number(table, "current")?,
        horizon,
        from: catalog::column_number(horizon, "pending_from")?,
        pending,
        index: relation("pending_epoch_horizon")?,
        number: column("epoch")?,
        link: LinkColumns {
            id: column("id")?,
            schema: column("link_schema")?,
            table: column("link_table")?,
            columns: column("link_columns")?,
            values: column("link_values")?,
            // Not where the SQL objects are those of 0.1.0.
            definition: column("definition"),
        },
        progress: Progress {
            table: progress,
            lookup: UniqueIndexLookup::new(relation("epoch_progress_pkey")?, INT8OID)?,
            passed_xmin: catalog::column_number(progress, "passed_xmin")?,
        },
    };
    let keys = Keys {
        table: keys,
        index: relation("pending_key_probe")?,
        set: catalog::column_number(keys, "key_set")?,
        hash: catalog::column_number(keys, "key_hash")?,
    };
    Some((epochs, keys))
}
