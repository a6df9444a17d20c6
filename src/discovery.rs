//! From the document view to what it depends on: used tables and columns, and the routes from a
//! changed row back to the profiles that show it.
//!
//! Invariant: everything is read from the catalogs by OID (`pg_depend`, `pg_constraint`), so renames
//! carry over; a used table without a route is refused. Which columns join which is known here by
//! construction: only views that attach() generated come here.

use crate::error::Error;
use crate::pg::spi::{self, Arg, At};
use crate::pg::{Oid, catalog};
use crate::routes::{self, Definition, Link, Step, Table};
use pgrx::pg_sys;

/// A validated foreign key on one column.
#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub from: Oid,
    pub to: Oid,
    pub from_number: i16,
    pub from_column: String,
    pub to_column: String,
    /// The referencing and the referenced column's types, as SQL writes them.
    pub from_type: String,
    pub to_type: String,
    pub operator: String,
    /// Whether the referenced column is of a text-like type, and of one that equals byte by byte.
    pub textual: bool,
    pub plain: bool,
}

/// Foreign keys among these tables.
pub fn foreign_keys(tables: &[Oid]) -> Vec<ForeignKey> {
    spi::all(
        "SELECT c.conrelid, c.confrelid, f.attnum::int8, f.attname::text, t.attname::text, \
          format_type(coalesce(nullif(fb.typbasetype, 0), f.atttypid), NULL), \
          format_type(tb.oid, NULL), \
          format('OPERATOR(%I.%s)', n.nspname, o.oprname), \
          t.attcollation <> 0, tb.typname IN ('text', 'varchar', 'bpchar') AND coalesce(l.collisdeterministic, true) \
         FROM pg_constraint AS c \
         JOIN pg_attribute AS f ON f.attrelid = c.conrelid AND f.attnum = c.conkey[1] \
         JOIN pg_attribute AS t ON t.attrelid = c.confrelid AND t.attnum = c.confkey[1] \
         JOIN pg_type AS fb ON fb.oid = f.atttypid JOIN pg_type AS tt ON tt.oid = t.atttypid \
         JOIN pg_type AS tb ON tb.oid = CASE WHEN tt.typtype = 'd' THEN tt.typbasetype ELSE tt.oid END \
         LEFT JOIN pg_collation AS l ON l.oid = t.attcollation \
         JOIN pg_operator AS o ON o.oid = c.conpfeqop[1] JOIN pg_namespace AS n ON n.oid = o.oprnamespace \
         WHERE c.contype = 'f' AND c.convalidated AND cardinality(c.conkey) = 1 \
          AND c.conrelid = ANY ($1) AND c.confrelid = ANY ($1) ORDER BY c.conname",
        At::Latest,
        &[Arg::oids(tables)],
        |r| {
            Some(ForeignKey {
                from: r.oid(1)?,
                to: r.oid(2)?,
                from_number: i16::try_from(r.int8(3)?).ok()?,
                from_column: r.text(4)?,
                to_column: r.text(5)?,
                from_type: r.text(6)?,
                to_type: r.text(7)?,
                operator: r.text(8)?,
                textual: r.bool(9)?,
                plain: r.bool(10)?,
            })
        },
    )
    .into_iter()
    .flatten()
    .collect()
}

fn name_of(oid: Oid) -> String {
    catalog::relation_name(oid).map_or_else(|| oid.to_string(), |(s, t)| routes::display(&s, &t))
}

/// What the view depends on. Must run with a search_path of pg_catalog alone.
pub fn discover(profile: Oid, document: Oid) -> Result<Definition, Error> {
    let (view_key, key, expires) = view_shape(profile, document)?;
    let mut used = used_columns(document);
    match used.iter_mut().find(|(t, _)| *t == profile) {
        Some((_, columns)) => columns.push(key.1),
        None => used.push((profile, vec![key.1])),
    }
    let tables: Vec<Oid> = used.iter().map(|(t, _)| *t).collect();
    one_owner(profile, tables.iter().chain([&document]))?;
    let keys: Vec<ForeignKey> = foreign_keys(&tables)
        .into_iter()
        .filter(|fk| {
            used.iter()
                .any(|(t, c)| *t == fk.from && c.contains(&fk.from_number))
        })
        .collect();
    let mut found = vec![];
    for (oid, numbers) in &used {
        let Some((schema, name)) = catalog::relation_name(*oid) else {
            return Err(Error::Internal("a used table has no name".into()));
        };
        let links = if *oid == profile {
            vec![own_link(&key.0)]
        } else {
            links(*oid, profile, &keys)?
        };
        let table = Table {
            schema,
            name,
            columns: column_names(*oid, numbers),
            links,
        };
        if *oid == profile {
            found.insert(0, table)
        } else {
            found.push(table)
        }
    }
    Ok(Definition {
        key: key.0,
        view_key,
        expires,
        tables: found,
    })
}

/// Documents are computed as the profile table's owner, who must own all that they show.
fn one_owner<'a>(profile: Oid, mut others: impl Iterator<Item = &'a Oid>) -> Result<(), Error> {
    let owner = catalog::owner(profile);
    match others.find(|t| catalog::owner(**t) != owner) {
        None => Ok(()),
        Some(t) => Err(Error::OtherOwner {
            table: name_of(*t),
            owner: catalog::owner(*t)
                .map(catalog::role_name)
                .unwrap_or_default(),
            expected: owner.map(catalog::role_name).unwrap_or_default(),
        }),
    }
}

/// The view's name for the key, the profile's key column, and whether there is a valid_until.
fn view_shape(profile: Oid, document: Oid) -> Result<(String, (String, i16), bool), Error> {
    let columns = catalog::view_columns(document);
    let has = |name: &str, oid| columns.iter().any(|c| c.name == name && c.oid == oid);
    let broken = |why: &str| Error::DocumentBroken(why.into());
    if !has("document", pg_sys::JSONBOID) {
        return Err(broken("It has no column document of type jsonb."));
    }
    let expires = has("valid_until", pg_sys::TIMESTAMPTZOID);
    if !expires && columns.iter().any(|c| c.name == "valid_until") {
        return Err(broken("Its column valid_until is not of type timestamptz."));
    }
    let key = columns
        .iter()
        .find(|c| c.origin.is_some_and(|(t, _)| t == profile) && c.name != "document")
        .ok_or_else(|| broken("None of its columns is the profile table's key."))?;
    let number = key.origin.map_or(0, |(_, n)| n);
    let name = spi::one(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum = $2",
        At::Latest,
        &[Arg::oid(profile), Arg::int8(Some(number.into()))],
        |r| r.text(1),
    )
    .flatten()
    .ok_or_else(|| broken("None of its columns is the profile table's key."))?;
    Ok((key.name.clone(), (name, number), expires))
}

/// Tables and columns that the view's rule depends on.
fn used_columns(document: Oid) -> Vec<(Oid, Vec<i16>)> {
    spi::all(
        "SELECT d.refobjid, array_agg(DISTINCT d.refobjsubid::int2) FROM pg_rewrite AS r \
         JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid \
         WHERE r.ev_class = $1 AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> $1 \
         GROUP BY 1 ORDER BY 1",
        At::Latest,
        &[Arg::oid(document)],
        |r| {
            Some((
                r.oid(1)?,
                r.int2s(2)?.into_iter().filter(|n| *n > 0).collect(),
            ))
        },
    )
    .into_iter()
    .flatten()
    .collect()
}

/// The names of used columns; where one is generated from others, every column.
fn column_names(table: Oid, numbers: &[i16]) -> Vec<String> {
    let numbers: Vec<String> = numbers.iter().map(i16::to_string).collect();
    let ours: Vec<String> = crate::routes::COLUMNS
        .iter()
        .map(|(c, _)| (*c).to_owned())
        .collect();
    spi::all(
        "SELECT a.attname::text FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum > 0 \
         AND NOT a.attisdropped AND a.attname::text <> ALL ($3) AND (a.attnum::text = ANY ($2) OR EXISTS \
          (SELECT FROM pg_attribute AS g WHERE g.attrelid = $1 AND g.attnum::text = ANY ($2) \
           AND g.attgenerated <> '')) ORDER BY a.attnum",
        At::Latest,
        &[Arg::oid(table), Arg::texts(&numbers), Arg::texts(&ours)],
        |r| r.text(1).unwrap_or_default(),
    )
}

/// The profile table touches the profile whose key it holds.
fn own_link(key: &str) -> Link {
    Link {
        column: key.to_owned(),
        r#type: routes::UUID.into(),
        target_type: routes::UUID.into(),
        everyone: vec![],
        route: vec![Step {
            schema: String::new(),
            table: String::new(),
            column: key.to_owned(),
            operator: "OPERATOR(pg_catalog.=)".into(),
            next: None,
        }],
    }
}

/// The generated view shows every profile without a subscription the plan `free`, so a row of that
/// id concerns everyone; where case or collation blurs what equals it, any row does. A dimension in
/// which the value means nothing is only distrusted too much.
fn everyone(fk: &ForeignKey) -> Vec<String> {
    match (fk.textual, fk.plain) {
        (false, _) => vec![],
        (true, true) => vec!["free".into()],
        (true, false) => vec![routes::ANY_VALUE.into()],
    }
}

/// A member's link: its foreign key to the profile.
fn member_link(fk: &ForeignKey) -> Link {
    Link {
        column: fk.from_column.clone(),
        r#type: fk.from_type.clone(),
        target_type: fk.to_type.clone(),
        everyone: vec![],
        route: vec![profile_step(fk)],
    }
}

fn profile_step(fk: &ForeignKey) -> Step {
    let (schema, table) = catalog::relation_name(fk.to).unwrap_or_default();
    Step {
        schema,
        table,
        column: fk.to_column.clone(),
        operator: fk.operator.clone(),
        next: None,
    }
}

/// The routes of a table that is not the profile: as a member, or as what a member refers to.
fn links(table: Oid, profile: Oid, keys: &[ForeignKey]) -> Result<Vec<Link>, Error> {
    let to_profile = |from: Oid| {
        keys.iter()
            .filter(move |fk| fk.from == from && fk.to == profile)
    };
    let mut links: Vec<Link> = to_profile(table).map(member_link).collect();
    for up in keys.iter().filter(|fk| fk.to == table && fk.from != table) {
        let (schema, name) = catalog::relation_name(up.from).unwrap_or_default();
        for last in to_profile(up.from) {
            links.push(Link {
                column: up.to_column.clone(),
                r#type: up.to_type.clone(),
                target_type: last.to_type.clone(),
                everyone: everyone(up),
                route: vec![
                    Step {
                        schema: schema.clone(),
                        table: name.clone(),
                        column: up.from_column.clone(),
                        operator: up.operator.clone(),
                        next: Some(last.from_column.clone()),
                    },
                    profile_step(last),
                ],
            });
        }
    }
    if links.is_empty() {
        return Err(Error::NoForeignKey {
            table: name_of(table),
            to: name_of(profile),
        });
    }
    Ok(links)
}
