//! What the catalogs know of the tables that a view reads: foreign keys, unique indexes, columns, equalities.
//!
//! Invariant: everything is read by OID, as it is at the latest commit, and nothing is changed. A foreign key
//! or an index is a fact only where PostgreSQL holds to it at every moment and for every row.

use crate::definition;
use crate::error::Error;
use crate::pg::parse_tree;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog};
use crate::proof::claims::claim;
use crate::proof::{self, Facts, Partial, Unique};
use crate::query_tree::Expr;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A validated, enforced foreign key.
#[derive(Clone, Debug)]
pub struct CatalogKey {
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

pub struct CatalogColumn {
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
    pub facts: Facts,
    pub columns: BTreeMap<(u32, i16), CatalogColumn>,
    operators: HashMap<u32, String>,
}

impl Catalog {
    pub fn read(tables: &[Oid]) -> Catalog {
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
        facts.partial = partial_indexes(tables);
        for (operator, family) in whole(spi::all(
            "SELECT o.amopopr, o.amopfamily FROM pg_amop AS o JOIN pg_operator AS p ON p.oid = o.amopopr \
             JOIN pg_proc AS f ON f.oid = p.oprcode JOIN pg_am AS m ON m.oid = o.amopmethod \
             WHERE m.amname = 'btree' AND o.amopstrategy = 3 AND o.amoppurpose = 's' AND f.proisstrict AND f.provolatile = 'i'",
            Snapshot::Latest,
            &[],
            |r| r.oid(1).zip(r.oid(2)),
        )) {
            let families = facts.equality.entry(operator.to_u32()).or_default();
            families.push(family.to_u32());
        }
        facts.nondeterministic = whole(spi::all(
            "SELECT c.oid FROM pg_collation AS c WHERE NOT c.collisdeterministic",
            Snapshot::Latest,
            &[],
            |r| r.oid(1).map(|o| o.to_u32()),
        ))
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
    pub fn unique(&self, table: u32) -> Result<Vec<Vec<String>>, Error> {
        let of_table = self.facts.unique.iter().filter(|u| u.table == table);
        let names = |u: &Unique| u.columns.iter().map(|c| self.name((table, c.0))).collect();
        let all: BTreeSet<Vec<String>> = of_table.map(names).collect::<Result<_, _>>()?;
        Ok(all.into_iter().collect())
    }

    /// The partial ones of a table that a proof goes by.
    pub fn partial(
        &self,
        table: u32,
        by: &BTreeSet<usize>,
    ) -> Result<Vec<definition::Partial>, Error> {
        let name = |n: &i16| self.name((table, *n));
        let all = by.iter().filter_map(|n| self.facts.partial.get(*n));
        let of_table = all.filter(|p| p.unique.table == table);
        let partial = |p: &Partial| {
            Ok(definition::Partial {
                columns: p
                    .unique
                    .columns
                    .iter()
                    .map(|c| name(&c.0))
                    .collect::<Result<_, Error>>()?,
                tested: p.claims.iter().map(|c| name(&c.0)).collect::<Result<_, Error>>()?,
                predicate: p.predicate.clone(),
            })
        };
        of_table.map(partial).collect()
    }

    /// Every column that something is asked of is one of a table that was read: the view's, or what a
    /// foreign key refers to.
    fn column(&self, (table, number): (u32, i16)) -> Result<&CatalogColumn, Error> {
        let found = self.columns.get(&(table, number));
        found.ok_or_else(|| missing(format!("column {number} of relation {table}")))
    }

    pub fn name(&self, column: (u32, i16)) -> Result<String, Error> {
        Ok(self.column(column)?.name.clone())
    }

    /// A column's collation where another column, with which it is compared, has a different one; else
    /// empty.
    pub fn collation_beside(&self, column: (u32, i16), other: (u32, i16)) -> Result<String, Error> {
        let (own, others) = (&self.column(column)?.collation, &self.column(other)?.collation);
        Ok(if own == others { String::new() } else { own.clone() })
    }

    pub fn type_of(&self, column: (u32, i16)) -> Result<String, Error> {
        Ok(self.column(column)?.r#type.clone())
    }

    /// An operator of a foreign key, as SQL writes it.
    pub fn operator(&self, oid: u32) -> Result<String, Error> {
        let found = self.operators.get(&oid).cloned();
        found.ok_or_else(|| missing(format!("operator {oid}")))
    }
}

/// What should have been read was not: nothing may be built on that.
fn missing(what: String) -> Error {
    Error::Internal(format!("{what} is not known"))
}

/// Rows of columns that are never NULL. One that were left out would be a key of fewer columns.
fn whole<T>(rows: Vec<Option<T>>) -> impl Iterator<Item = T> {
    rows.into_iter().map(|row| row.unwrap_or_else(|| missing("part of a catalog".into()).raise()))
}

/// In SQL, the name of a collation, qualified; NULL where there is none.
fn collation_name(oid: &str) -> String {
    format!(
        "(SELECT format('%I.%I', n.nspname, l.collname) FROM pg_collation AS l \
         JOIN pg_namespace AS n ON n.oid = l.collnamespace WHERE l.oid = {oid})"
    )
}

/// Foreign keys of these tables that PostgreSQL enforces for every row.
pub fn foreign_keys(tables: &[Oid]) -> Vec<CatalogKey> {
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
    let rows = spi::all(&sql, Snapshot::Latest, &[Arg::oids(tables)], |r| {
        let number = |n| r.int8(n).and_then(|n| i16::try_from(n).ok());
        let column = KeyColumn {
            from: number(4)?,
            to: number(5)?,
            from_name: r.text(6)?,
            to_name: r.text(7)?,
            operator_oid: r.oid(8)?.to_u32(),
            operator: r.text(9)?,
            // A type may have none where the other has one.
            from_collation: r.text(10).unwrap_or_default(),
            to_collation: r.text(11).unwrap_or_default(),
        };
        Some((r.oid(1)?, r.oid(2)?, r.oid(3)?, column))
    });
    let mut found: Vec<(Oid, CatalogKey)> = vec![];
    for (constraint, from, to, column) in whole(rows) {
        match found.last_mut() {
            Some((last, fk)) if *last == constraint => fk.columns.push(column),
            _ => found.push((constraint, CatalogKey { from, to, columns: vec![column] })),
        }
    }
    found.into_iter().map(|(_, fk)| fk).collect()
}

/// Of these tables, those of which each row belongs to a profile: the profile table, and what refers to it, or to the
/// row that a profile is the only one to refer to, over whatever tables, by foreign keys that are never NULL or by whose
/// row it is deleted. One that is NOT VALID counts too: this is about what is meant.
pub fn of_profiles(profile: Oid, tables: &[Oid]) -> BTreeSet<u32> {
    whole(spi::all(
        "WITH RECURSIVE leads(first, at) AS (SELECT t.oid, t.oid FROM unnest($2) AS t(oid) UNION \
           SELECT l.first, c.confrelid FROM leads AS l JOIN pg_constraint AS c ON c.conrelid = l.at AND c.contype = 'f' \
            AND (c.confdeltype = 'c' OR NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey) AND NOT a.attnotnull))), \
          own(oid) AS (SELECT $1 UNION ALL SELECT c.confrelid FROM pg_constraint AS c JOIN pg_index AS i ON i.indrelid = c.conrelid \
            AND i.indisunique AND i.indpred IS NULL AND i.indkey::int2[] <@ c.conkey WHERE c.contype = 'f' AND c.conrelid = $1) \
         SELECT DISTINCT l.first FROM leads AS l JOIN own AS o ON o.oid = l.at",
        Snapshot::Latest,
        &[Arg::oid(profile), Arg::oids(tables)],
        |r| r.oid(1).map(|o| o.to_u32()),
    ))
    .collect()
}

/// Unique indexes that hold at every moment and for every row.
pub fn unique_indexes(tables: &[Oid]) -> Vec<Unique> {
    indexes(tables, "i.indpred IS NULL").into_iter().map(|(unique, _, _)| unique).collect()
}

/// Those that hold for rows of which a predicate is true, as far as that is understood.
pub fn partial_indexes(tables: &[Oid]) -> Vec<Partial> {
    let found = indexes(tables, "i.indpred IS NOT NULL").into_iter();
    let partial = |(unique, tree, predicate): (Unique, Option<String>, Option<String>)| {
        let condition = parse_tree::plain_condition(&tree?)?;
        let claims = condition.conjuncts().into_iter().map(|expr| match claim(expr)? {
            (Expr::Column { number, .. }, claim) => Some((*number, claim)),
            _ => None,
        });
        let claims = claims.collect::<Option<_>>()?;
        Some(Partial { unique, claims, predicate: predicate? })
    };
    found.filter_map(partial).collect()
}

/// Unique indexes that are valid and immediate, with the predicates of those that have one: as PostgreSQL keeps it and as
/// SQL writes it.
fn indexes(tables: &[Oid], which: &str) -> Vec<(Unique, Option<String>, Option<String>)> {
    let sql = format!(
        "SELECT i.indexrelid, i.indrelid, k.attnum::int8, c.opcfamily, k.coll, i.indpred::text, pg_get_expr(i.indpred, i.indrelid) \
         FROM pg_index AS i CROSS JOIN LATERAL \
          ROWS FROM (unnest(i.indkey), unnest(i.indclass), unnest(i.indcollation)) WITH ORDINALITY AS k(attnum, class, coll, n) \
         JOIN pg_opclass AS c ON c.oid = k.class \
         WHERE i.indrelid = ANY ($1) AND i.indisunique AND i.indisvalid AND i.indimmediate AND {which} \
          AND i.indexprs IS NULL AND k.n <= i.indnkeyatts ORDER BY 1, k.n"
    );
    let rows = spi::all(&sql, Snapshot::Latest, &[Arg::oids(tables)], |r| {
        let number = i16::try_from(r.int8(3)?).ok()?;
        let column = (number, r.oid(4)?.to_u32(), r.oid(5)?.to_u32());
        Some((r.oid(1)?, r.oid(2)?, column, r.text(6), r.text(7)))
    });
    let mut found: Vec<(Oid, (Unique, _, _))> = vec![];
    for (index, table, column, tree, predicate) in whole(rows) {
        match found.last_mut() {
            Some((last, (unique, _, _))) if *last == index => unique.columns.push(column),
            _ => {
                let unique = Unique { table: table.to_u32(), columns: vec![column] };
                found.push((index, (unique, tree, predicate)));
            }
        }
    }
    found.into_iter().map(|(_, index)| index).collect()
}

/// The tables' columns; their names and collations also as facts. Equal values have one image where
/// the type's btree says so (its support function 4, as for deduplication).
fn columns(tables: &[Oid], facts: &mut Facts) -> BTreeMap<(u32, i16), CatalogColumn> {
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
    let rows = spi::all(&sql, Snapshot::Latest, &[Arg::oids(tables)], |r| {
        let number = i16::try_from(r.int8(2)?).ok()?;
        let column = CatalogColumn {
            name: r.text(3)?,
            r#type: r.text(4)?,
            plain: r.bool(6)?,
            generated: r.bool(7)?,
            // Of many types values have none.
            collation: r.text(10).unwrap_or_default(),
        };
        let families = [r.oid(8), r.oid(9)].into_iter().flatten();
        let families: Vec<u32> = families.map(|f| f.to_u32()).collect();
        let place = (r.oid(1)?.to_u32(), number);
        Some((place, r.oid(5)?.to_u32(), families, column))
    });
    let mut found = BTreeMap::new();
    for (place, collation, families, column) in whole(rows) {
        facts.families.insert(place, families);
        facts.columns.insert(place, column.name.clone());
        if collation != 0 {
            facts.collations.insert(place, collation);
        }
        found.insert(place, column);
    }
    found
}

/// A table or view as people write it; its number where it is gone.
pub fn name_of(oid: Oid) -> String {
    catalog::relation_name(oid)
        .map_or_else(|| oid.to_string(), |(s, t)| definition::display(&s, &t))
}

/// The schema and the name of a table that the view reads: it is there as long as the view is.
pub fn schema_and_name(table: u32) -> Result<(String, String), Error> {
    catalog::relation_name(Oid::from(table)).ok_or_else(|| missing(format!("relation {table}")))
}
