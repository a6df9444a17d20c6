//! From the document view to what it depends on: what the catalogs know of its tables, the proof over
//! that (`mod.rs`), and the definition that follows (`routes.rs`).
//!
//! Invariant: everything is read from the catalogs by OID, so renames carry over; what cannot be
//! proven is an error.

use crate::definition::{self, Definition, Link, Step};
use crate::error::Error;
use crate::pg::parse_tree::{of_view, pause};
use crate::pg::spi::{self, Arg, At};
use crate::pg::{Oid, catalog};
use crate::proof::reach::Reached;
use crate::proof::routes::Routes;
use crate::proof::volatility::check_functions;
use crate::proof::{self, Facts, Proof, Unique};
use pgrx::pg_sys;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A validated, enforced foreign key.
#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub from: Oid,
    pub to: Oid,
    pub columns: Vec<KeyColumn>,
}

#[derive(Clone, Debug)]
pub struct KeyColumn {
    pub from: i16,
    pub to: i16,
    pub from_name: String,
    pub to_name: String,
    operator_oid: u32,
    /// Its equality, as SQL writes it.
    pub operator: String,
    /// Of either column where they differ, as SQL writes it.
    pub from_collation: String,
    pub to_collation: String,
}

/// Which column is the profile's key.
pub enum Key<'a> {
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

/// What the view depends on. Must run with a search_path of pg_catalog alone.
pub fn discover(profile: Oid, document: Oid, key: Key) -> Result<Discovered, Error> {
    // DDL, which asks for what is shown, waits for nobody.
    let wait = matches!(key, Key::Column(_));
    let Some((query, uses)) = of_view(document, wait) else {
        return Err(Error::NotAView(name_of(document)));
    };
    // Before anything else that may be wrong: what this finds makes the view unsafe to read.
    let reached = Reached::by_view(profile, document);
    reached.check(profile)?;
    if let Some(what) = query.unsupported {
        return Err(Error::Unsupported(what));
    }
    let shown = catalog::view_columns(document);
    let tables: Vec<Oid> = query
        .tables()
        .into_iter()
        .chain([profile.to_u32()])
        .collect::<BTreeSet<u32>>()
        .into_iter()
        .map(Oid::from)
        .collect();
    let views: Vec<Oid> = uses.views.iter().map(|v| Oid::from(*v)).collect();
    if views.iter().any(|v| catalog::is_temporary(*v)) {
        return Err(Error::Unsupported("a temporary view"));
    }
    if reached.has_temporary() {
        return Err(Error::Unsupported("a function, type or other object in a temporary schema"));
    }
    let expires = shape(&shown)?;
    check_functions(&reached, &uses, expires)?;
    let catalog = Catalog::read(&tables);
    let unique_uuid = |column: i16| {
        catalog.columns.get(&(profile.to_u32(), column)).is_some_and(|c| c.r#type == "uuid")
            && catalog.facts.unique.iter().any(|u| {
                u.table == profile.to_u32() && u.columns.len() == 1 && u.columns[0].0 == column
            })
    };
    let output = |name: &str| shown.iter().position(|c| c.name == name);
    let is_key = |number: i16, column: i16| match &key {
        Key::Column(wanted) => column == *wanted,
        Key::Shown(name) => match output(name) {
            Some(n) => i16::try_from(n + 1) == Ok(number),
            None => unique_uuid(column),
        },
    };
    let proof = proof::prove(&query, profile.to_u32(), is_key, &catalog.facts, &pause).map_err(
        |e| match (e, &key) {
            (Error::NoKeyInView(table), Key::Column(n)) => {
                let column = catalog.name((profile.to_u32(), *n));
                let column = definition::display_identifier(&column);
                Error::NoKeyInView(format!("{table}.{column}"))
            }
            (other, _) => other,
        },
    )?;
    check_columns(&proof, &catalog, profile)?;
    if let Some(o) = proof.grouped.first() {
        return Err(Error::ReadWhole(name_of(Oid::from(proof.occurrences[*o].table))));
    }
    let Some(view_key) = shown.get(usize::try_from(proof.key - 1).unwrap_or_default()) else {
        return Err(Error::NoKeyInView(name_of(profile)));
    };
    if view_key.oid != pg_sys::UUIDOID {
        let column = definition::display_identifier(&view_key.name);
        let why = format!("its column {column} is not of type uuid");
        return Err(Error::DocumentShape(why));
    }
    Ok(Discovered {
        unordered: uses.unordered,
        tied: proof.tied.clone(),
        definition: Definition {
            own_code: reached.has_own_code(),
            key: catalog.name((profile.to_u32(), proof.key_column)),
            view_key: view_key.name.clone(),
            expires,
            tables: Routes { proof: &proof, catalog: &catalog, profile }.tables()?,
        },
    })
}

fn name_of(oid: Oid) -> String {
    catalog::relation_name(oid)
        .map_or_else(|| oid.to_string(), |(s, t)| definition::display(&s, &t))
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
    for o in &proof.occurrences {
        let table = name_of(Oid::from(o.table));
        if let Some(system) = o.columns.iter().find(|n| **n < 0) {
            return Err(Error::SystemColumn { column: catalog::system_column(*system), table });
        }
        if o.table != profile.to_u32() {
            continue;
        }
        if o.columns.contains(&0) {
            return Err(Error::WholeProfile(table));
        }
        let names = o.columns.iter().map(|n| catalog.name((o.table, *n)));
        if let Some(ours) =
            names.into_iter().find(|n| definition::COLUMNS.iter().any(|(c, _)| c == n))
        {
            return Err(Error::OwnColumn(ours));
        }
    }
    Ok(())
}

pub struct Column {
    pub name: String,
    /// Its type's (under a domain) name as SQL writes it, whether equal values have one image and
    /// so one text, and whether it is generated from other columns.
    pub r#type: String,
    pub plain: bool,
    pub generated: bool,
    /// As SQL writes it; empty where it has none.
    pub collation: String,
}

/// What the catalogs say about the used tables.
pub struct Catalog {
    facts: Facts,
    pub columns: BTreeMap<(u32, i16), Column>,
    pub operators: HashMap<u32, String>,
}

impl Catalog {
    fn read(tables: &[Oid]) -> Catalog {
        let keys = foreign_keys(tables);
        let mut facts = Facts::default();
        let mut operators = HashMap::new();
        for fk in &keys {
            for c in &fk.columns {
                operators.insert(c.operator_oid, c.operator.clone());
            }
            facts.foreign_keys.push(proof::ForeignKey {
                from: fk.from.to_u32(),
                to: fk.to.to_u32(),
                columns: fk.columns.iter().map(|c| (c.from, c.to, c.operator_oid)).collect(),
            });
        }
        facts.unique = unique_indexes(tables);
        for (operator, family) in spi::all(
            "SELECT o.amopopr, o.amopfamily FROM pg_amop AS o JOIN pg_operator AS p ON p.oid = o.amopopr \
             JOIN pg_proc AS f ON f.oid = p.oprcode JOIN pg_am AS m ON m.oid = o.amopmethod \
             WHERE m.amname = 'btree' AND o.amopstrategy = 3 AND o.amoppurpose = 's' AND f.proisstrict AND f.provolatile = 'i'",
            At::Latest,
            &[],
            |r| r.oid(1).zip(r.oid(2)),
        )
        .into_iter()
        .flatten()
        {
            let families = facts.equality.entry(operator.to_u32()).or_default();
            families.push(family.to_u32());
        }
        facts.nondeterministic = spi::all(
            "SELECT c.oid FROM pg_collation AS c WHERE NOT c.collisdeterministic",
            At::Latest,
            &[],
            |r| r.oid(1).map(|o| o.to_u32()),
        )
        .into_iter()
        .flatten()
        .collect();
        for t in tables {
            facts.tables.insert(t.to_u32(), name_of(*t));
        }
        // What a foreign key refers to also where the view does not read it.
        let known: BTreeSet<u32> =
            tables.iter().chain(keys.iter().map(|k| &k.to)).map(|t| t.to_u32()).collect();
        let known: Vec<Oid> = known.into_iter().map(Oid::from).collect();
        let columns = columns(&known, &mut facts);
        Catalog { facts, columns, operators }
    }

    /// The names of columns that are unique together, for each unique index of a table.
    pub fn unique(&self, table: u32) -> Vec<Vec<String>> {
        let of_table = self.facts.unique.iter().filter(|u| u.table == table);
        let names = |u: &Unique| u.columns.iter().map(|c| self.name((table, c.0))).collect();
        let all: BTreeSet<Vec<String>> = of_table.map(names).collect();
        all.into_iter().collect()
    }

    pub fn name(&self, column: (u32, i16)) -> String {
        let found = self.columns.get(&column);
        found.map_or_else(String::new, |c| c.name.clone())
    }

    /// A column's collation where another column, with which it is compared, has a different one.
    pub fn collation_beside(&self, column: (u32, i16), other: (u32, i16)) -> String {
        let of = |c| self.columns.get(&c).map_or("", |c| &*c.collation);
        let (own, others) = (of(column), of(other));
        if own == others { String::new() } else { own.to_owned() }
    }

    pub fn type_of(&self, column: (u32, i16)) -> String {
        let found = self.columns.get(&column);
        found.map_or_else(String::new, |c| c.r#type.clone())
    }
}

/// In SQL, the name of a collation, qualified; NULL where there is none.
fn collation_name(oid: &str) -> String {
    format!(
        "(SELECT format('%I.%I', n.nspname, l.collname) FROM pg_collation AS l \
         JOIN pg_namespace AS n ON n.oid = l.collnamespace WHERE l.oid = {oid})"
    )
}

/// Foreign keys of these tables that PostgreSQL enforces for every row.
pub fn foreign_keys(tables: &[Oid]) -> Vec<ForeignKey> {
    let (of_f, of_t) = (collation_name("f.attcollation"), collation_name("t.attcollation"));
    let sql = format!(
        "SELECT c.oid, c.conrelid, c.confrelid, f.attnum::int8, t.attnum::int8, f.attname::text, t.attname::text, \
          o.oid, format('OPERATOR(%I.%s)', n.nspname, o.oprname), \
          CASE WHEN f.attcollation <> t.attcollation THEN {of_f} ELSE '' END, \
          CASE WHEN f.attcollation <> t.attcollation THEN {of_t} ELSE '' END \
         FROM pg_constraint AS c CROSS JOIN LATERAL \
          ROWS FROM (unnest(c.conkey), unnest(c.confkey), unnest(c.conpfeqop)) WITH ORDINALITY AS k(f, t, o, n) \
         JOIN pg_attribute AS f ON f.attrelid = c.conrelid AND f.attnum = k.f \
         JOIN pg_attribute AS t ON t.attrelid = c.confrelid AND t.attnum = k.t \
         JOIN pg_operator AS o ON o.oid = k.o JOIN pg_namespace AS n ON n.oid = o.oprnamespace \
         WHERE c.contype = 'f' AND c.convalidated AND c.conrelid = ANY ($1) \
          AND NOT EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgconstraint = c.oid AND g.tgenabled NOT IN ('O', 'A')) \
         ORDER BY c.conname, c.oid, k.n",
    );
    let rows = spi::all(&sql, At::Latest, &[Arg::oids(tables)], |r| {
        let number = |n| r.int8(n).and_then(|n| i16::try_from(n).ok());
        let column = KeyColumn {
            from: number(4)?,
            to: number(5)?,
            from_name: r.text(6)?,
            to_name: r.text(7)?,
            operator_oid: r.oid(8)?.to_u32(),
            operator: r.text(9)?,
            from_collation: r.text(10).unwrap_or_default(),
            to_collation: r.text(11).unwrap_or_default(),
        };
        Some((r.oid(1)?, r.oid(2)?, r.oid(3)?, column))
    });
    let mut found: Vec<(Oid, ForeignKey)> = vec![];
    for (constraint, from, to, column) in rows.into_iter().flatten() {
        match found.last_mut() {
            Some((last, fk)) if *last == constraint => fk.columns.push(column),
            _ => found.push((constraint, ForeignKey { from, to, columns: vec![column] })),
        }
    }
    found.into_iter().map(|(_, fk)| fk).collect()
}

/// Unique indexes that hold at every moment and for every row.
pub fn unique_indexes(tables: &[Oid]) -> Vec<Unique> {
    let rows = spi::all(
        "SELECT i.indexrelid, i.indrelid, k.attnum::int8, c.opcfamily, k.coll \
         FROM pg_index AS i CROSS JOIN LATERAL \
          ROWS FROM (unnest(i.indkey), unnest(i.indclass), unnest(i.indcollation)) WITH ORDINALITY AS k(attnum, class, coll, n) \
         JOIN pg_opclass AS c ON c.oid = k.class \
         WHERE i.indrelid = ANY ($1) AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL \
          AND i.indexprs IS NULL AND k.n <= i.indnkeyatts ORDER BY 1, k.n",
        At::Latest,
        &[Arg::oids(tables)],
        |r| {
            let number = i16::try_from(r.int8(3)?).ok()?;
            let column = (number, r.oid(4)?.to_u32(), r.oid(5)?.to_u32());
            Some((r.oid(1)?, r.oid(2)?, column))
        },
    );
    let mut found: Vec<(Oid, Unique)> = vec![];
    for (index, table, column) in rows.into_iter().flatten() {
        match found.last_mut() {
            Some((last, unique)) if *last == index => unique.columns.push(column),
            _ => found.push((index, Unique { table: table.to_u32(), columns: vec![column] })),
        }
    }
    found.into_iter().map(|(_, unique)| unique).collect()
}

/// The tables' columns; their names and collations also as facts. Equal values have one image where
/// the type's btree says so (its support function 4, as for deduplication).
fn columns(tables: &[Oid], facts: &mut Facts) -> BTreeMap<(u32, i16), Column> {
    let sql = format!(
        // Each type once: tables have many columns of few types.
        "WITH own AS MATERIALIZED (SELECT a.* FROM pg_attribute AS a \
           WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped), \
          base(of, oid) AS (WITH RECURSIVE d(of, oid, next) AS ( \
            SELECT t.oid, t.oid, t.typbasetype FROM pg_type AS t WHERE t.oid IN (SELECT a.atttypid FROM own AS a) \
            UNION ALL SELECT d.of, t.oid, t.typbasetype FROM d JOIN pg_type AS t ON t.oid = d.next) \
           SELECT d.of, d.oid FROM d WHERE d.next = 0), \
          btree(type, family) AS MATERIALIZED (SELECT c.opcintype, c.opcfamily FROM pg_opclass AS c \
           JOIN pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree' WHERE c.opcdefault), \
          kind(of, oid, family, plain, by_collation) AS MATERIALIZED (SELECT b.of, b.oid, c.family, \
            s.amproc::oid = 'btequalimage'::regproc, s.amproc::oid = 'btvarstrequalimage'::regproc \
           FROM base AS b JOIN pg_type AS t ON t.oid = b.oid LEFT JOIN btree AS c ON c.type = CASE \
             WHEN t.typtype = 'e' THEN 'anyenum'::regtype WHEN b.oid = 'varchar'::regtype THEN 'text'::regtype ELSE b.oid END \
           LEFT JOIN pg_amproc AS s ON s.amprocfamily = c.family AND s.amprocnum = 4 \
            AND s.amproclefttype = c.type AND s.amprocrighttype = c.type) \
         SELECT a.attrelid, a.attnum::int8, a.attname::text, format_type(k.oid, -1), a.attcollation, \
          coalesce(k.plain OR k.by_collation AND coalesce(l.collisdeterministic, true), false), a.attgenerated <> '', k.family, \
          (SELECT c.family FROM btree AS c WHERE c.type = 'numeric'::regtype AND k.oid = ANY ('{{int2,int4,int8}}'::regtype[])), {} \
         FROM own AS a JOIN kind AS k ON k.of = a.atttypid LEFT JOIN pg_collation AS l ON l.oid = a.attcollation",
        collation_name("a.attcollation"),
    );
    let rows = spi::all(&sql, At::Latest, &[Arg::oids(tables)], |r| {
        let number = i16::try_from(r.int8(2)?).ok()?;
        let column = Column {
            name: r.text(3)?,
            r#type: r.text(4)?,
            plain: r.bool(6)?,
            generated: r.bool(7)?,
            collation: r.text(10).unwrap_or_default(),
        };
        let families = [r.oid(8), r.oid(9)].into_iter().flatten();
        let families: Vec<u32> = families.map(|f| f.to_u32()).collect();
        let place = (r.oid(1)?.to_u32(), number);
        Some((place, r.oid(5)?.to_u32(), families, column))
    });
    let mut found = BTreeMap::new();
    for (place, collation, families, column) in rows.into_iter().flatten() {
        facts.families.insert(place, families);
        facts.columns.insert(place, column.name.clone());
        if collation != 0 {
            facts.collations.insert(place, collation);
        }
        found.insert(place, column);
    }
    found
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
