//! From the ties that the proof found to links: which columns of which table lead to which profiles.
//!
//! Invariant: each way in which the view reads a table has a link, which watches every column that is
//! read that way. A link's route goes through the columns that the view itself compares.

use crate::definition::{self, Link, LinkColumn, Step, StepColumn, Table};
use crate::error::Error;
use crate::pg::parse_tree::pause;
use crate::pg::{Oid, catalog};
use crate::proof::facts::{Catalog, schema_and_name};
use crate::proof::{Proof, Tie};
use crate::query_tree::bounds;
use std::collections::{BTreeMap, BTreeSet};

/// From ties to links.
pub struct Routes<'a> {
    pub proof: &'a Proof,
    pub catalog: &'a Catalog,
    pub profile: Oid,
}

/// A way from a range-table entry's columns to the profile.
#[derive(Clone, PartialEq)]
struct Route {
    columns: Vec<i16>,
    target_types: Vec<String>,
    member: bool,
    everyone: Vec<String>,
    steps: Vec<Step>,
}

impl Route {
    /// Each row of the table, whatever is in it.
    fn of_everyone() -> Route {
        let (columns, target_types, steps) = (vec![], vec![], vec![]);
        let everyone = vec![definition::ANY_VALUE.to_owned()];
        Route { columns, target_types, member: false, everyone, steps }
    }
}

impl Routes<'_> {
    /// The used tables with their links, the profile first.
    pub fn tables(&self) -> Result<Vec<Table>, Error> {
        let mut all = vec![None; self.proof.rtes.len()];
        let mut ways = 0;
        let mut found: BTreeMap<u32, Vec<Link>> = BTreeMap::new();
        let profile = self.profile.to_u32();
        found.entry(profile).or_default();
        let mut whole = BTreeSet::new();
        for (o, rte) in self.proof.rtes.iter().enumerate() {
            let table = rte.table;
            if rte.columns.contains(&0) {
                whole.insert(table);
            }
            let links = found.entry(table).or_default();
            let routes = self.routes(o, &mut all)?;
            ways += routes.len();
            if ways > bounds::ROUTES {
                return Err(Error::Unsupported(bounds::MANY_ROUTES));
            }
            for route in routes {
                let place = |n: &i16| (table, *n);
                let columns = route.columns.iter().zip(&route.target_types);
                let column = |(n, target_type): (&i16, &String)| {
                    Ok(LinkColumn {
                        column: self.catalog.name(place(n))?,
                        r#type: self.catalog.type_of(place(n))?,
                        target_type: target_type.clone(),
                    })
                };
                let link = Link {
                    columns: columns.map(column).collect::<Result<_, Error>>()?,
                    watched: self.watched(table, &rte.columns),
                    member: route.member,
                    everyone: route.everyone,
                    route: route.steps,
                    again: false,
                };
                // The view may come by the same way twice.
                let same = |l: &&mut Link| {
                    (&l.columns, l.member, &l.everyone, &l.route)
                        == (&link.columns, link.member, &link.everyone, &link.route)
                };
                match links.iter_mut().find(same) {
                    Some(known) => {
                        let all = known.watched.iter().chain(&link.watched).cloned();
                        let all: BTreeSet<String> = all.collect();
                        known.watched = self.in_order(table, &all);
                        known.again = true;
                    }
                    None => links.push(link),
                }
            }
        }
        let mut tables: Vec<(bool, Table)> = vec![];
        for (oid, mut links) in found {
            // Who makes everything pending first spares the rest.
            links.sort_by_key(|l| (!l.member, l.everyone.is_empty()));
            let (schema, name) = schema_and_name(oid)?;
            let (whole, unique) = (whole.contains(&oid), self.catalog.unique(oid)?);
            let partial = self.catalog.partial(oid, &self.proof.partial)?;
            tables.push((oid != profile, Table { schema, name, links, whole, unique, partial }));
        }
        tables.sort_by_key(|(other, _)| *other);
        Ok(tables.into_iter().map(|(_, t)| t).collect())
    }

    fn in_order(&self, table: u32, names: &BTreeSet<String>) -> Vec<String> {
        let columns = self.catalog.columns.range((table, 0)..=(table, i16::MAX));
        columns.map(|(_, c)| c.name.clone()).filter(|n| names.contains(n)).collect()
    }

    /// The names of the columns a range-table entry reads; all of them where that is its whole row, or
    /// where one is generated from others. Never ours.
    fn watched(&self, table: u32, numbers: &BTreeSet<i16>) -> Vec<String> {
        let columns = || self.catalog.columns.range((table, 0)..=(table, i16::MAX));
        let all =
            numbers.contains(&0) || columns().any(|((_, n), c)| c.generated && numbers.contains(n));
        columns()
            .filter(|((_, n), _)| all || numbers.contains(n))
            .map(|(_, c)| c.name.clone())
            .filter(|name| {
                table != self.profile.to_u32()
                    || !definition::COLUMNS.iter().any(|(c, _)| c == name)
            })
            .collect()
    }

    /// The ways from a range-table entry, each once. Where it is tied to several, there are as many as all of those
    /// have. `all`: what is known already.
    fn routes(&self, rte: usize, all: &mut Vec<Option<Vec<Route>>>) -> Result<Vec<Route>, Error> {
        if let Some(known) = &all[rte] {
            return Ok(known.clone());
        }
        let table = self.proof.rtes[rte].table;
        let mut found: Vec<Route> = vec![];
        for tie in &self.proof.ties[rte] {
            let routes = match tie {
                Tie::Profile => vec![self.own()?],
                Tie::Constant { column, value, r#type } => {
                    vec![self.constant((table, *column), value, *r#type)?]
                }
                Tie::Everyone => vec![Route::of_everyone()],
                Tie::To { other, columns, one_profile } => {
                    let onward = self.routes(*other, all)?;
                    let through = |next| self.through(table, *other, columns, *one_profile, next);
                    onward.into_iter().map(through).collect::<Result<_, _>>()?
                }
            };
            for route in routes {
                pause();
                if !found.contains(&route) {
                    found.push(route);
                }
                if found.len() > bounds::ROUTES {
                    return Err(Error::Unsupported(bounds::MANY_ROUTES));
                }
            }
        }
        all[rte] = Some(found.clone());
        Ok(found)
    }

    /// The profile touches itself.
    fn own(&self) -> Result<Route, Error> {
        let key = self.catalog.name((self.profile.to_u32(), self.proof.key_column))?;
        Ok(Route {
            columns: vec![self.proof.key_column],
            target_types: vec![definition::UUID.into()],
            member: true,
            everyone: vec![],
            steps: vec![Step::profile(&key, definition::BUILT_IN_EQUALS)],
        })
    }

    /// A row that equals a constant concerns everyone. Where equality takes for equal what prints
    /// differently, any row may be it.
    fn constant(&self, place: (u32, i16), value: &str, r#type: u32) -> Result<Route, Error> {
        const TEXTS: [&str; 2] = ["text", "character varying"];
        const INTEGERS: [&str; 3] = ["smallint", "integer", "bigint"];
        let mine = self.catalog.type_of(place)?;
        let theirs = catalog::type_name(Oid::from(r#type));
        let both = |types: &[&str]| types.contains(&&*mine) && types.contains(&&*theirs);
        let alike = mine == theirs || both(&TEXTS) || both(&INTEGERS);
        let plain = alike && self.catalog.columns.get(&place).is_some_and(|c| c.plain);
        Ok(Route {
            columns: vec![place.1],
            target_types: vec![mine],
            member: false,
            everyone: vec![if plain { value } else { definition::ANY_VALUE }.to_owned()],
            steps: vec![],
        })
    }

    /// One step to another range-table entry, and from there as that one goes.
    fn through(
        &self,
        table: u32,
        other: usize,
        columns: &[(i16, i16, u32)],
        one_profile: bool,
        next: Route,
    ) -> Result<Route, Error> {
        let theirs = self.proof.rtes[other].table;
        let is_profile = self.proof.ties[other] == [Tie::Profile];
        let (schema, name) = schema_and_name(theirs)?;
        let column = |(mine, n, operator): &(i16, i16, u32)| {
            Ok(StepColumn {
                collation: self.catalog.collation_beside((theirs, *n), (table, *mine))?,
                column: self.catalog.name((theirs, *n))?,
                operator: self.catalog.operator(*operator)?,
            })
        };
        let next_columns = next.columns.iter().map(|n| self.catalog.name((theirs, *n)));
        let step = Step {
            schema,
            table: name,
            columns: columns.iter().map(column).collect::<Result<_, Error>>()?,
            next: if is_profile { vec![] } else { next_columns.collect::<Result<_, _>>()? },
        };
        let target_types = columns.iter().map(|c| self.catalog.type_of((theirs, c.1)));
        let mut route = Route {
            columns: columns.iter().map(|c| c.0).collect(),
            target_types: target_types.collect::<Result<_, _>>()?,
            member: one_profile && table != self.profile.to_u32(),
            everyone: vec![],
            steps: vec![step],
        };
        if is_profile {
            return Ok(route);
        }
        if next.everyone.is_empty() {
            route.steps.extend(next.steps);
            return Ok(route);
        }
        if next.columns.is_empty() {
            return Ok(Route::of_everyone());
        }
        // What a constant's row refers to, or is referred to by.
        let place = (table, route.columns[0]);
        let same = matches!(columns, [(_, n, _)] if *n == next.columns[0])
            && self.catalog.type_of(place)? == next.target_types[0]
            && self.catalog.columns.get(&place).is_some_and(|c| c.plain);
        route.steps = vec![];
        route.everyone = if same { next.everyone } else { vec![definition::ANY_VALUE.to_owned()] };
        route.columns.truncate(1);
        route.target_types.truncate(1);
        Ok(route)
    }
}
