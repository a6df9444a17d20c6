//! From the document view to what it depends on: what the catalogs know of its tables, the proof over
//! that (`mod.rs`), and the definition that follows (`routes.rs`).
//!
//! Invariant: everything is read from the catalogs by OID, so renames carry over; what cannot be
//! proven is an error.
//!
//! Rules: D6.

use crate::definition::{self, Definition, Link, Step};
use crate::error::Error;
use crate::pg::parse_tree::{Uses, of_view, pause};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog};
use crate::proof::facts::{Catalog, name_of, of_profiles};
use crate::proof::reach::Reached;
use crate::proof::routes::Routes;
use crate::proof::volatility::check_functions;
use crate::proof::{self, Proof, RangeTableEntry};
use crate::query_tree::Query;
use pgrx::pg_sys;
use std::collections::BTreeSet;

pub use crate::proof::facts::{foreign_keys, partial_indexes, unique_indexes};

/// Which column is the profile's key.
pub enum ProfileKey<'a> {
    /// The profile's column of this number.
    Column(i16),
    /// Whatever the view's column of this name shows; where there is none, any that could be one.
    Shown(&'a str),
}

/// What the view depends on, and what it leaves open.
pub struct Discovered {
    pub definition: Definition,
    /// Aggregates and LIMITs whose order the view leaves open.
    pub unordered: BTreeSet<String>,
    /// LIMIT and the like by an order in which rows may tie.
    pub tied: BTreeSet<&'static str>,
}

/// The tables that a view reads, at any depth; None where the relation is no view.
pub fn tables_of(document: Oid) -> Option<Vec<Oid>> {
    let (query, _) = of_view(document, true)?;
    Some(query.tables().into_iter().map(Oid::from).collect())
}

/// What the view depends on. Must run with a search_path of pg_catalog alone. `before`: what is recorded, where that is
/// looked at anew: only attach(), which warns of it, takes a table for shown to everyone that was tied before.
pub fn discover(
    profile: Oid,
    document: Oid,
    key: ProfileKey,
    before: Option<&Definition>,
) -> Result<Discovered, Error> {
    // DDL, which asks for what is shown, waits for nobody.
    let wait = matches!(key, ProfileKey::Column(_));
    let Some((query, uses)) = of_view(document, wait) else {
        return Err(Error::NotAView(name_of(document)));
    };
    // Before anything else that may be wrong: what this finds makes the view unsafe to read.
    let reached = Reached::by_view(profile, document);
    reached.check(profile)?;
    if let Some(what) = query.unsupported {
        return Err(Error::Unsupported(what));
    }
    check_temporary(&uses, &reached)?;
    let shown = catalog::view_columns(document);
    let expires = shape(&shown)?;
    check_functions(&reached, &uses, expires)?;
    let mut tables = query.tables();
    tables.insert(profile.to_u32());
    let tables: Vec<Oid> = tables.into_iter().map(Oid::from).collect();
    let mut catalog = Catalog::read(&tables);
    catalog.facts.never_whole = of_profiles(profile, &tables);
    catalog.facts.never_whole.extend(before.map(known_in_parts).unwrap_or_default());
    let proof = prove(&query, profile, &key, &shown, &catalog)?;
    check_columns(&proof, &catalog, profile)?;
    if let Some(o) = proof.grouped.first() {
        return Err(Error::ReadWhole(name_of(Oid::from(proof.rtes[*o].table))));
    }
    let view_key = view_key(&proof, &shown, profile)?;
    Ok(Discovered {
        unordered: uses.unordered,
        tied: proof.tied.clone(),
        definition: Definition {
            own_code: reached.has_own_code(),
            key: catalog.name((profile.to_u32(), proof.key_column))?,
            view_key: view_key.name.clone(),
            expires,
            tables: Routes { proof: &proof, catalog: &catalog, profile }.tables()?,
        },
    })
}

/// The tables of a definition that not every profile shows.
fn known_in_parts(before: &Definition) -> Vec<u32> {
    let in_parts = before.tables.iter().filter(|t| !t.links.iter().any(Link::is_whole));
    in_parts.filter_map(|t| catalog::relation(&t.schema, &t.name)).map(|t| t.to_u32()).collect()
}

/// Nothing that goes with a session.
fn check_temporary(uses: &Uses, reached: &Reached) -> Result<(), Error> {
    if uses.views.iter().any(|v| catalog::is_temporary(Oid::from(*v))) {
        return Err(Error::Unsupported("a temporary view"));
    }
    if reached.has_temporary() {
        return Err(Error::Unsupported("a function, type or other object in a temporary schema"));
    }
    Ok(())
}

/// The proof, by what the catalogs say; `shown` are the view's columns.
fn prove(
    query: &Query,
    profile: Oid,
    key: &ProfileKey,
    shown: &[catalog::ViewColumn],
    catalog: &Catalog,
) -> Result<Proof, Error> {
    let unique_uuid = |column: i16| {
        catalog.columns.get(&(profile.to_u32(), column)).is_some_and(|c| c.r#type == "uuid")
            && catalog.facts.unique.iter().any(|u| {
                u.table == profile.to_u32() && u.columns.len() == 1 && u.columns[0].0 == column
            })
    };
    let output = |name: &str| shown.iter().position(|c| c.name == name);
    let is_key = |number: i16, column: i16| match key {
        ProfileKey::Column(wanted) => column == *wanted,
        ProfileKey::Shown(name) => match output(name) {
            Some(n) => i16::try_from(n + 1) == Ok(number),
            None => unique_uuid(column),
        },
    };
    proof::prove(query, profile.to_u32(), is_key, &catalog.facts, &pause).map_err(|e| {
        match (e, key) {
            (Error::NoKeyInView(table), ProfileKey::Column(n)) => {
                match catalog.name((profile.to_u32(), *n)) {
                    Ok(column) => {
                        let column = definition::display_identifier(&column);
                        Error::NoKeyInView(format!("{table}.{column}"))
                    }
                    Err(gone) => gone,
                }
            }
            (other, _) => other,
        }
    })
}

/// The view's column that is the key.
fn view_key<'a>(
    proof: &Proof,
    shown: &'a [catalog::ViewColumn],
    profile: Oid,
) -> Result<&'a catalog::ViewColumn, Error> {
    let number = usize::try_from(proof.key - 1).ok();
    let Some(column) = number.and_then(|n| shown.get(n)) else {
        return Err(Error::NoKeyInView(name_of(profile)));
    };
    if column.oid != pg_sys::UUIDOID {
        let column = definition::display_identifier(&column.name);
        let why = format!("its column {column} is not of type uuid");
        return Err(Error::DocumentShape(why));
    }
    Ok(column)
}

/// Whether there is a valid_until; and that the columns are of their types.
fn shape(columns: &[catalog::ViewColumn]) -> Result<bool, Error> {
    let of = |name: &str| columns.iter().find(|c| c.name == name).map(|c| c.oid);
    let broken = |why: &str| Err(Error::DocumentShape(why.into()));
    match of("document") {
        None => return broken("it has no column document"),
        Some(pg_sys::JSONBOID) => {}
        Some(_) => return broken("its column document is not of type jsonb"),
    }
    match of("valid_until") {
        None => Ok(false),
        Some(pg_sys::TIMESTAMPTZOID) => Ok(true),
        Some(_) => broken("its column valid_until is not of type timestamptz"),
    }
}

/// Columns that no document may show: of the system, of ours, and whole rows of the profile, which
/// hold ours.
fn check_columns(proof: &Proof, catalog: &Catalog, profile: Oid) -> Result<(), Error> {
    for o in &proof.rtes {
        let table = name_of(Oid::from(o.table));
        if let Some(system) = o.columns.iter().find(|n| **n < 0) {
            return Err(Error::SystemColumn { column: catalog::system_column(*system), table });
        }
        if o.table != profile.to_u32() {
            continue;
        }
        if o.columns.contains(&0) {
            let (alias, columns) = columns_of_the_app(o);
            return Err(Error::WholeProfile { table, alias, columns });
        }
        for n in &o.columns {
            let name = catalog.name((o.table, *n))?;
            if definition::COLUMNS.iter().any(|(c, _)| *c == name) {
                let (alias, columns) = columns_of_the_app(o);
                return Err(Error::OwnColumn { column: name, alias, columns });
            }
        }
    }
    Ok(())
}

/// For a message: a profile's name in the view, and its columns but for ours, each as the view can name it.
fn columns_of_the_app(profile: &RangeTableEntry) -> (String, String) {
    let ours: Vec<String> = definition::COLUMNS.iter().map(|(c, _)| (*c).to_owned()).collect();
    let found = spi::one(
        "SELECT quote_ident($2), string_agg(format('%I.%I', $2, a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a \
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attname::text <> ALL ($3)",
        Snapshot::Latest,
        &[Arg::oid(Oid::from(profile.table)), Arg::text(&profile.alias), Arg::texts(&ours)],
        |r| r.text(1).zip(r.text(2)),
    );
    found.flatten().unwrap_or_else(|| (profile.alias.clone(), "its columns".into()))
}

/// Whether everything that `new` follows was followed by `old` too: writers who began under `old`
/// have then missed nothing.
pub fn covers(old: &Definition, new: &Definition) -> bool {
    new.tables.iter().all(|t| {
        let before = old.tables.iter().find(|o| (&o.schema, &o.name) == (&t.schema, &t.name));
        t.links.iter().all(|l| {
            before.is_some_and(|b| {
                b.links.iter().any(|o| {
                    // A pending key says which of the profile's columns it names.
                    let names = |l: &Link| l.direct().map(Step::column_names);
                    names(o) == names(l)
                        && (o.column_names(), o.member, &o.everyone)
                            == (l.column_names(), l.member, &l.everyone)
                        && l.watched.iter().all(|c| o.watched.contains(c))
                })
            })
        })
    })
}
