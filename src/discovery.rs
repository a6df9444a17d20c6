//! From the document view to what it depends on: used tables and columns, and the routes from a
//! changed row back to the profiles that show it.
//!
//! Invariant: everything is read from the catalogs by OID, so renames carry over; what the view
//! depends on is proven (`proof.rs`), and every function, operator and cast in it is one whose result
//! changes with its arguments only, or with now() where the view has a valid_until.

use crate::error::Error;
use crate::pg::query::{Uses, of_view};
use crate::pg::spi::{self, Arg, At};
use crate::pg::{Oid, catalog};
use crate::proof::{self, Facts, Proof, Tie, Unique};
use crate::routes::{self, Definition, Link, LinkColumn, Step, StepColumn, Table};
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
}

/// The tables that a view reads, at any depth; None where the relation is no view.
pub fn tables_of(document: Oid) -> Option<Vec<Oid>> {
    let (query, _) = of_view(document)?;
    Some(query.tables().into_iter().map(Oid::from).collect())
}

/// What the view depends on. Must run with a search_path of pg_catalog alone.
pub fn discover(profile: Oid, document: Oid, key: Key) -> Result<Discovered, Error> {
    let Some((query, uses)) = of_view(document) else {
        return Err(Error::NotAView(name_of(document)));
    };
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
    one_owner(profile, &tables, &views)?;
    let expires = shape(&shown)?;
    check_functions(profile, &uses, expires)?;
    let catalog = Catalog::read(&tables);
    let unique_uuid = |column: i16| {
        catalog
            .columns
            .get(&(profile.to_u32(), column))
            .is_some_and(|c| c.r#type == "uuid")
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
    let proof = proof::prove(&query, profile.to_u32(), is_key, &catalog.facts)?;
    check_columns(&proof, &catalog, profile)?;
    if let Some(o) = proof.grouped.first() {
        return Err(Error::ReadWhole(name_of(Oid::from(
            proof.occurrences[*o].table,
        ))));
    }
    let Some(view_key) = shown.get(usize::try_from(proof.key - 1).unwrap_or_default()) else {
        return Err(Error::NoKeyInView(name_of(profile)));
    };
    if view_key.oid != pg_sys::UUIDOID {
        let column = routes::display_identifier(&view_key.name);
        let why = format!("its column {column} is not of type uuid");
        return Err(Error::DocumentShape(why));
    }
    Ok(Discovered {
        unordered: uses.unordered,
        definition: Definition {
            key: catalog.name((profile.to_u32(), proof.key_column)),
            view_key: view_key.name.clone(),
            expires,
            tables: Routes {
                proof: &proof,
                catalog: &catalog,
                profile,
            }
            .tables(),
        },
    })
}

fn name_of(oid: Oid) -> String {
    catalog::relation_name(oid).map_or_else(|| oid.to_string(), |(s, t)| routes::display(&s, &t))
}

/// Documents are computed as the profile table's owner, who must own all that they show.
fn one_owner(profile: Oid, tables: &[Oid], views: &[Oid]) -> Result<(), Error> {
    let owner = catalog::owner(profile);
    let mut all = tables.iter().chain(views);
    match all.find(|t| catalog::owner(**t) != owner) {
        None => Ok(()),
        Some(&t) => Err(Error::OtherOwner {
            kind: if tables.contains(&t) { "table" } else { "view" },
            name: name_of(t),
            owner: catalog::owner(t)
                .map(catalog::role_name)
                .unwrap_or_default(),
            expected: owner.map(catalog::role_name).unwrap_or_default(),
        }),
    }
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
            return Err(Error::SystemColumn {
                column: catalog::system_column(*system),
                table,
            });
        }
        if o.table != profile.to_u32() {
            continue;
        }
        if o.columns.contains(&0) {
            return Err(Error::WholeProfile(table));
        }
        let names = o.columns.iter().map(|n| catalog.name((o.table, *n)));
        if let Some(ours) = names
            .into_iter()
            .find(|n| routes::COLUMNS.iter().any(|(c, _)| c == n))
        {
            return Err(Error::OwnColumn(ours));
        }
    }
    Ok(())
}

/// STABLE built-ins whose result depends on nothing but their arguments and the pinned settings.
const HARMLESS: &str = "'anytextcat', 'array_out', 'array_to_json', 'array_to_string', 'cash_in', 'cash_out', \
    'concat', 'concat_ws', 'convert', 'convert_from', 'convert_to', 'date', 'date_cmp_timestamptz', \
    'date_eq_timestamptz', 'date_ge_timestamptz', 'date_gt_timestamptz', 'date_le_timestamptz', \
    'date_lt_timestamptz', 'date_ne_timestamptz', 'date_out', 'date_part', 'date_trunc', 'enum_in', 'enum_out', \
    'extract', 'format', 'in_range', 'interval_in', 'interval_out', 'interval_pl_timestamptz', 'json_agg', \
    'json_build_array', 'json_build_object', 'json_object_agg', 'jsonb_agg', 'jsonb_build_array', \
    'jsonb_build_object', 'jsonb_object_agg', 'jsonb_path_exists_tz', 'jsonb_path_match_tz', \
    'jsonb_path_query_array_tz', 'jsonb_path_query_first_tz', 'length', 'make_timestamptz', 'money', \
    'multirange_out', 'numeric', 'overlaps', 'quote_literal', 'quote_nullable', 'range_out', 'record_out', \
    'row_to_json', 'textanycat', 'time', 'timestamp', 'timestamp_cmp_timestamptz', 'timestamp_eq_timestamptz', \
    'timestamp_ge_timestamptz', 'timestamp_gt_timestamptz', 'timestamp_le_timestamptz', \
    'timestamp_lt_timestamptz', 'timestamp_ne_timestamptz', 'timestamp_out', 'timestamptz', \
    'timestamptz_cmp_date', 'timestamptz_cmp_timestamp', 'timestamptz_eq_date', 'timestamptz_eq_timestamp', \
    'timestamptz_ge_date', 'timestamptz_ge_timestamp', 'timestamptz_gt_date', 'timestamptz_gt_timestamp', \
    'timestamptz_le_date', 'timestamptz_le_timestamp', 'timestamptz_lt_date', 'timestamptz_lt_timestamp', \
    'timestamptz_mi_interval', 'timestamptz_ne_date', 'timestamptz_ne_timestamp', 'timestamptz_out', \
    'timestamptz_pl_interval', 'to_char', 'to_date', 'to_json', 'to_jsonb', 'to_number', 'to_timestamp'";

/// Those that depend on now() too, or can: of a text that says 'today', of a zone's offset.
const TIMELY: &str = "'now', 'transaction_timestamp', 'age', 'date_in', 'time_in', 'timetz_in', 'timestamp_in', \
    'timestamptz_in', 'timetz', 'timezone', 'array_in', 'range_in', 'multirange_in', 'record_in', 'domain_in'";

/// SQL's own words for the same.
const TIMELY_WORDS: [&str; 5] = [
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "LOCALTIME",
    "LOCALTIMESTAMP",
];

/// Refuses whatever may give another result for the same rows.
fn check_functions(profile: Oid, uses: &Uses, expires: bool) -> Result<(), Error> {
    let mut timely = None;
    for word in &uses.values {
        if TIMELY_WORDS.contains(word) {
            timely = Some((*word).to_owned());
        } else {
            return Err(Error::SessionValue((*word).to_owned()));
        }
    }
    let oids = |set: &BTreeSet<u32>| set.iter().map(|o| Oid::from(*o)).collect::<Vec<_>>();
    // Printing a value calls its type's output function, for json an own cast to json, and does so
    // for all that the type consists of.
    let sql = format!(
        "WITH RECURSIVE printed(oid) AS ( \
           SELECT unnest($3) UNION \
           SELECT n.oid FROM printed AS p JOIN pg_type AS t ON t.oid = p.oid CROSS JOIN LATERAL ( \
             SELECT t.typelem UNION ALL SELECT t.typbasetype \
             UNION ALL SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid \
              AND a.attnum > 0 AND NOT a.attisdropped \
             UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) AS n(oid) \
           WHERE n.oid <> 0), \
         called(oid, by) AS ( \
           SELECT f, NULL::oid FROM unnest($1) AS f \
           UNION SELECT o.oprcode, NULL FROM pg_operator AS o WHERE o.oid = ANY ($2) \
           UNION SELECT k.f, NULL FROM pg_aggregate AS g CROSS JOIN LATERAL (VALUES (g.aggtransfn::oid), (g.aggfinalfn), \
             (g.aggcombinefn), (g.aggmtransfn), (g.aggminvtransfn), (g.aggmfinalfn)) AS k(f) \
            WHERE g.aggfnoid = ANY ($1) AND g.aggfnoid >= 16384 AND k.f <> 0 \
           UNION SELECT t.typoutput, t.oid FROM printed AS p JOIN pg_type AS t USING (oid) WHERE t.typtype NOT IN ('d', 'p') \
           UNION SELECT c.castfunc, NULL FROM printed AS p JOIN pg_cast AS c ON c.castsource = p.oid \
            WHERE c.casttarget = 'json'::regtype AND c.castfunc <> 0) \
         SELECT f.oid::regprocedure::text, f.provolatile::text, f.proname::text, f.pronamespace = 'pg_catalog'::regnamespace, \
          f.proname IN ({HARMLESS}) OR f.oid = ANY ('{{json_agg_transfn, jsonb_agg_transfn, jsonb_agg_finalfn}}'::regproc[]), \
          f.proname IN ({TIMELY}) AND f.oid <> 'age(xid)'::regprocedure, \
          CASE WHEN f.pronamespace <> 'pg_catalog'::regnamespace AND f.proowner <> $4 \
            AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.oid = f.proowner) THEN f.proowner::regrole::text END, \
          NULL::text, \
          f.proname ~ '^reg(class|collation|config|dictionary|namespace|oper|operator|proc|procedure|role|type)(in|out)$' \
           OR f.proname = 'aclitemout', f.proretset \
         FROM called AS c JOIN pg_proc AS f ON f.oid = c.oid ORDER BY 1"
    );
    let owner = catalog::owner(profile).unwrap_or(Oid::INVALID);
    let found = spi::all(
        &sql,
        At::Latest,
        &[
            Arg::oids(&oids(&uses.functions)),
            Arg::oids(&oids(&uses.operators)),
            Arg::oids(&oids(&uses.printed)),
            Arg::oid(owner),
        ],
        |r| {
            let text = |n| r.text(n).unwrap_or_default();
            let is = |n| r.bool(n) == Some(true);
            let function = text(1);
            match text(2).as_str() {
                _ if is(10) => Err(Error::Unsupported("a set-returning function")),
                "v" => Err(Error::VolatileFunction(function)),
                "i" => match r.text(7) {
                    Some(owner) => Err(Error::OtherFunctionOwner { function, owner }),
                    None => Ok(None),
                },
                _ if !is(4) => Err(Error::StableFunction(function)),
                _ if is(9) => {
                    let name = text(3);
                    let printed = name.strip_suffix("out").or(name.strip_suffix("in"));
                    Err(Error::PrintsNames(printed.unwrap_or(&name).to_owned()))
                }
                _ if is(6) => Ok(Some(function)),
                _ if is(5) => Ok(None),
                _ => Err(Error::SessionValue(function)),
            }
        },
    );
    for f in found {
        timely = f?.or(timely);
    }
    // A body that is parsed (BEGIN ATOMIC, RETURN) says what it reads.
    let reads = spi::one(
        "WITH RECURSIVE called(by, oid) AS (SELECT f, f FROM unnest($1) AS f WHERE f >= 16384 \
          UNION SELECT c.by, d.refobjid FROM called AS c JOIN pg_depend AS d ON d.objid = c.oid \
           AND d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_proc'::regclass) \
         SELECT c.by::regprocedure::text, d.refobjid::regclass::text FROM called AS c JOIN pg_depend AS d \
          ON d.objid = c.oid AND d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_class'::regclass LIMIT 1",
        At::Latest,
        &[Arg::oids(&oids(&uses.functions))],
        |r| r.text(1).zip(r.text(2)),
    );
    if let Some((function, table)) = reads.flatten() {
        return Err(Error::FunctionReads { function, table });
    }
    match timely {
        Some(what) if !expires => Err(Error::NeedsValidUntil(what)),
        _ => Ok(()),
    }
}

struct Column {
    name: String,
    /// Its type's (under a domain) name as SQL writes it, whether equal values have one image and
    /// so one text, and whether it is generated from other columns.
    r#type: String,
    plain: bool,
    generated: bool,
}

/// What the catalogs say about the used tables.
struct Catalog {
    facts: Facts,
    columns: BTreeMap<(u32, i16), Column>,
    operators: HashMap<u32, String>,
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
                columns: fk
                    .columns
                    .iter()
                    .map(|c| (c.from, c.to, c.operator_oid))
                    .collect(),
            });
        }
        facts.unique = unique_indexes(tables);
        for (operator, family) in spi::all(
            "SELECT o.amopopr, o.amopfamily FROM pg_amop AS o JOIN pg_operator AS p ON p.oid = o.amopopr \
             JOIN pg_proc AS f ON f.oid = p.oprcode JOIN pg_am AS m ON m.oid = o.amopmethod \
             WHERE m.amname = 'btree' AND o.amopstrategy = 3 AND o.amoppurpose = 's' AND f.proisstrict",
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
        let columns = columns(tables, &mut facts);
        Catalog {
            facts,
            columns,
            operators,
        }
    }

    fn name(&self, column: (u32, i16)) -> String {
        let found = self.columns.get(&column);
        found.map_or_else(String::new, |c| c.name.clone())
    }

    fn type_of(&self, column: (u32, i16)) -> String {
        let found = self.columns.get(&column);
        found.map_or_else(String::new, |c| c.r#type.clone())
    }
}

/// Foreign keys of these tables that PostgreSQL enforces for every row.
pub fn foreign_keys(tables: &[Oid]) -> Vec<ForeignKey> {
    let rows = spi::all(
        "SELECT c.oid, c.conrelid, c.confrelid, f.attnum::int8, t.attnum::int8, f.attname::text, t.attname::text, \
          o.oid, format('OPERATOR(%I.%s)', n.nspname, o.oprname) \
         FROM pg_constraint AS c CROSS JOIN LATERAL \
          ROWS FROM (unnest(c.conkey), unnest(c.confkey), unnest(c.conpfeqop)) WITH ORDINALITY AS k(f, t, o, n) \
         JOIN pg_attribute AS f ON f.attrelid = c.conrelid AND f.attnum = k.f \
         JOIN pg_attribute AS t ON t.attrelid = c.confrelid AND t.attnum = k.t \
         JOIN pg_operator AS o ON o.oid = k.o JOIN pg_namespace AS n ON n.oid = o.oprnamespace \
         WHERE c.contype = 'f' AND c.convalidated AND c.conrelid = ANY ($1) \
          AND NOT EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgconstraint = c.oid AND g.tgenabled NOT IN ('O', 'A')) \
         ORDER BY c.conname, c.oid, k.n",
        At::Latest,
        &[Arg::oids(tables)],
        |r| {
            let number = |n| r.int8(n).and_then(|n| i16::try_from(n).ok());
            let column = KeyColumn {
                from: number(4)?,
                to: number(5)?,
                from_name: r.text(6)?,
                to_name: r.text(7)?,
                operator_oid: r.oid(8)?.to_u32(),
                operator: r.text(9)?,
            };
            Some((r.oid(1)?, r.oid(2)?, r.oid(3)?, column))
        },
    );
    let mut found: Vec<(Oid, ForeignKey)> = vec![];
    for (constraint, from, to, column) in rows.into_iter().flatten() {
        match found.last_mut() {
            Some((last, fk)) if *last == constraint => fk.columns.push(column),
            _ => found.push((
                constraint,
                ForeignKey {
                    from,
                    to,
                    columns: vec![column],
                },
            )),
        }
    }
    found.into_iter().map(|(_, fk)| fk).collect()
}

/// Unique indexes that hold at every moment and for every row.
fn unique_indexes(tables: &[Oid]) -> Vec<Unique> {
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
            _ => found.push((
                index,
                Unique {
                    table: table.to_u32(),
                    columns: vec![column],
                },
            )),
        }
    }
    found.into_iter().map(|(_, unique)| unique).collect()
}

/// The tables' columns; their names and collations also as facts. Equal values have one image where
/// the type's btree says so (its support function 4, as for deduplication).
fn columns(tables: &[Oid], facts: &mut Facts) -> BTreeMap<(u32, i16), Column> {
    let rows = spi::all(
        "SELECT a.attrelid, a.attnum::int8, a.attname::text, format_type(b.oid, -1), a.attcollation, \
          coalesce((SELECT bool_or(s.amproc::oid = 'btequalimage'::regproc \
            OR s.amproc::oid = 'btvarstrequalimage'::regproc AND coalesce(l.collisdeterministic, true)) \
           FROM pg_opclass AS c JOIN pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree' \
           JOIN pg_amproc AS s ON s.amprocfamily = c.opcfamily AND s.amprocnum = 4 \
            AND s.amproclefttype = c.opcintype AND s.amprocrighttype = c.opcintype \
           WHERE c.opcdefault AND c.opcintype = CASE WHEN b.typtype = 'e' THEN 'anyenum'::regtype \
            WHEN b.oid = 'varchar'::regtype THEN 'text'::regtype ELSE b.oid END), false), \
          a.attgenerated <> '', \
          (SELECT c.opcfamily FROM pg_opclass AS c JOIN pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree' \
           WHERE c.opcdefault AND c.opcintype = CASE WHEN b.typtype = 'e' THEN 'anyenum'::regtype \
            WHEN b.oid = 'varchar'::regtype THEN 'text'::regtype ELSE b.oid END), \
          (SELECT c.opcfamily FROM pg_opclass AS c JOIN pg_am AS m ON m.oid = c.opcmethod AND m.amname = 'btree' \
           WHERE c.opcdefault AND c.opcintype = 'numeric'::regtype AND b.oid = ANY ('{int2,int4,int8}'::regtype[])) \
         FROM pg_attribute AS a JOIN pg_type AS b ON b.oid = (WITH RECURSIVE d(oid, next) AS ( \
            SELECT t.oid, t.typbasetype FROM pg_type AS t WHERE t.oid = a.atttypid \
            UNION ALL SELECT t.oid, t.typbasetype FROM d JOIN pg_type AS t ON t.oid = d.next) \
           SELECT d.oid FROM d WHERE d.next = 0) \
         LEFT JOIN pg_collation AS l ON l.oid = a.attcollation \
         WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped",
        At::Latest,
        &[Arg::oids(tables)],
        |r| {
            let number = i16::try_from(r.int8(2)?).ok()?;
            let column = Column {
                name: r.text(3)?,
                r#type: r.text(4)?,
                plain: r.bool(6)?,
                generated: r.bool(7)?,
            };
            let families = [r.oid(8), r.oid(9)].into_iter().flatten();
            let families: Vec<u32> = families.map(|f| f.to_u32()).collect();
            let place = (r.oid(1)?.to_u32(), number);
            Some((place, r.oid(5)?.to_u32(), families, column))
        },
    );
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

/// From ties to links.
struct Routes<'a> {
    proof: &'a Proof,
    catalog: &'a Catalog,
    profile: Oid,
}

/// A way from an occurrence's columns to the profile.
#[derive(Clone)]
struct Route {
    columns: Vec<i16>,
    target_types: Vec<String>,
    member: bool,
    everyone: Vec<String>,
    steps: Vec<Step>,
}

impl Routes<'_> {
    /// The used tables with their links, the profile first.
    fn tables(&self) -> Vec<Table> {
        let mut found: BTreeMap<u32, Vec<Link>> = BTreeMap::new();
        let profile = self.profile.to_u32();
        found.entry(profile).or_default();
        for (o, occurrence) in self.proof.occurrences.iter().enumerate() {
            let table = occurrence.table;
            let links = found.entry(table).or_default();
            for route in self.routes(o) {
                let place = |n: &i16| (table, *n);
                let columns = route.columns.iter().zip(&route.target_types);
                let link = Link {
                    columns: columns
                        .map(|(n, target_type)| LinkColumn {
                            column: self.catalog.name(place(n)),
                            r#type: self.catalog.type_of(place(n)),
                            target_type: target_type.clone(),
                        })
                        .collect(),
                    watched: self.watched(table, &occurrence.columns),
                    member: route.member,
                    everyone: route.everyone,
                    route: route.steps,
                };
                // The view may come by the same way twice.
                let same = |l: &&mut Link| {
                    Link {
                        watched: link.watched.clone(),
                        ..(**l).clone()
                    } == link
                };
                match links.iter_mut().find(same) {
                    Some(known) => {
                        let all = known.watched.iter().chain(&link.watched).cloned();
                        let all: BTreeSet<String> = all.collect();
                        known.watched = self.in_order(table, &all);
                    }
                    None => links.push(link),
                }
            }
        }
        let mut tables: Vec<(bool, Table)> = found
            .into_iter()
            .map(|(oid, mut links)| {
                // Who makes everything pending first spares the rest.
                links.sort_by_key(|l| (!l.member, l.everyone.is_empty()));
                let (schema, name) = catalog::relation_name(Oid::from(oid)).unwrap_or_default();
                let table = Table {
                    schema,
                    name,
                    links,
                };
                (oid != profile, table)
            })
            .collect();
        tables.sort_by_key(|(other, _)| *other);
        tables.into_iter().map(|(_, t)| t).collect()
    }

    fn in_order(&self, table: u32, names: &BTreeSet<String>) -> Vec<String> {
        let columns = self.catalog.columns.range((table, 0)..=(table, i16::MAX));
        columns
            .map(|(_, c)| c.name.clone())
            .filter(|n| names.contains(n))
            .collect()
    }

    /// The names of the columns an occurrence reads; all of them where that is its whole row, or
    /// where one is generated from others. Never ours.
    fn watched(&self, table: u32, numbers: &BTreeSet<i16>) -> Vec<String> {
        let columns = || self.catalog.columns.range((table, 0)..=(table, i16::MAX));
        let all =
            numbers.contains(&0) || columns().any(|((_, n), c)| c.generated && numbers.contains(n));
        columns()
            .filter(|((_, n), _)| all || numbers.contains(n))
            .map(|(_, c)| c.name.clone())
            .filter(|name| {
                table != self.profile.to_u32() || !routes::COLUMNS.iter().any(|(c, _)| c == name)
            })
            .collect()
    }

    fn routes(&self, occurrence: usize) -> Vec<Route> {
        let table = self.proof.occurrences[occurrence].table;
        self.proof.ties[occurrence]
            .iter()
            .flat_map(|tie| match tie {
                Tie::Profile => vec![self.own()],
                Tie::Constant {
                    column,
                    value,
                    r#type,
                } => vec![self.constant((table, *column), value, *r#type)],
                Tie::To {
                    other,
                    columns,
                    child,
                } => {
                    let onward = self.routes(*other);
                    let is_profile = self.proof.ties[*other] == [Tie::Profile];
                    onward
                        .into_iter()
                        .map(|next| self.through(table, *other, columns, *child, is_profile, next))
                        .collect()
                }
            })
            .collect()
    }

    /// The profile touches itself.
    fn own(&self) -> Route {
        let key = self
            .catalog
            .name((self.profile.to_u32(), self.proof.key_column));
        Route {
            columns: vec![self.proof.key_column],
            target_types: vec![routes::UUID.into()],
            member: true,
            everyone: vec![],
            steps: vec![Step::profile(&key, routes::BUILT_IN_EQUALS)],
        }
    }

    /// A row that equals a constant concerns everyone. Where equality takes for equal what prints
    /// differently, any row may be it.
    fn constant(&self, place: (u32, i16), value: &str, r#type: u32) -> Route {
        const TEXTS: [&str; 2] = ["text", "character varying"];
        const INTEGERS: [&str; 3] = ["smallint", "integer", "bigint"];
        let mine = self.catalog.type_of(place);
        let theirs = catalog::type_name(Oid::from(r#type));
        let both = |types: &[&str]| types.contains(&&*mine) && types.contains(&&*theirs);
        let alike = mine == theirs || both(&TEXTS) || both(&INTEGERS);
        let plain = alike && self.catalog.columns.get(&place).is_some_and(|c| c.plain);
        Route {
            columns: vec![place.1],
            target_types: vec![mine],
            member: false,
            everyone: vec![if plain { value } else { routes::ANY_VALUE }.to_owned()],
            steps: vec![],
        }
    }

    /// One step to another occurrence, and from there as that one goes.
    fn through(
        &self,
        table: u32,
        other: usize,
        columns: &[(i16, i16, u32)],
        child: bool,
        is_profile: bool,
        next: Route,
    ) -> Route {
        let theirs = self.proof.occurrences[other].table;
        let (schema, name) = catalog::relation_name(Oid::from(theirs)).unwrap_or_default();
        let step = Step {
            schema,
            table: name,
            columns: columns
                .iter()
                .map(|(_, n, operator)| StepColumn {
                    column: self.catalog.name((theirs, *n)),
                    operator: self
                        .catalog
                        .operators
                        .get(operator)
                        .cloned()
                        .unwrap_or_default(),
                })
                .collect(),
            next: if is_profile {
                vec![]
            } else {
                next.columns
                    .iter()
                    .map(|n| self.catalog.name((theirs, *n)))
                    .collect()
            },
        };
        let target_types = columns.iter().map(|c| self.catalog.type_of((theirs, c.1)));
        let mut route = Route {
            columns: columns.iter().map(|c| c.0).collect(),
            target_types: target_types.collect(),
            member: is_profile && child && table != self.profile.to_u32(),
            everyone: vec![],
            steps: vec![step],
        };
        if is_profile {
            return route;
        }
        if next.everyone.is_empty() {
            route.steps.extend(next.steps);
            return route;
        }
        // What a constant's row refers to, or is referred to by.
        let place = (table, route.columns[0]);
        let same = matches!(columns, [(_, n, _)] if *n == next.columns[0])
            && self.catalog.type_of(place) == next.target_types[0]
            && self.catalog.columns.get(&place).is_some_and(|c| c.plain);
        route.steps = vec![];
        route.everyone = if same {
            next.everyone
        } else {
            vec![routes::ANY_VALUE.to_owned()]
        };
        route.columns.truncate(1);
        route.target_types.truncate(1);
        route
    }
}

/// Whether everything that `new` follows was followed by `old` too: writers who began under `old`
/// have then missed nothing.
pub fn covers(old: &Definition, new: &Definition) -> bool {
    new.tables.iter().all(|t| {
        let before = old
            .tables
            .iter()
            .find(|o| (&o.schema, &o.name) == (&t.schema, &t.name));
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
