//! Facts and views for the prover's unit tests: profiles, their members, and the members' plans.
//!
//! Invariant: every column's type has one equality, EQUAL, in one family, unless a test says otherwise.

use crate::error::Error;
use crate::proof::{Facts, ForeignKey, Proof, Unique, prove};
use crate::query_tree::{
    Expr, Group, JoinKind, Node, Oid, Operator, Query, Relation, Target, bounds,
};
use std::collections::{BTreeSet, HashMap};

// profile (1 id, 2 key, 3 tenant), member (1 id, 2 profile, 3 plan, 4 tenant), plan (1 id, 2 name).
pub const PROFILE: Oid = 1;
pub const MEMBER: Oid = 2;
pub const PLAN: Oid = 3;
pub const EQUAL: Oid = 96;
pub const LESS: Oid = 97;
pub const FAMILY: Oid = 1976;

pub fn facts() -> Facts {
    let unique = |table, column| Unique { table, columns: vec![(column, FAMILY, 0)] };
    let fk = |from, to, columns: &[(i16, i16)]| ForeignKey {
        from,
        to,
        columns: columns.iter().map(|(x, y)| (*x, *y, EQUAL)).collect(),
    };
    Facts {
        foreign_keys: vec![fk(MEMBER, PROFILE, &[(2, 1)]), fk(MEMBER, PLAN, &[(3, 1)])],
        unique: vec![unique(PROFILE, 1), unique(PROFILE, 2), unique(PLAN, 1)],
        equality: HashMap::from([(EQUAL, vec![FAMILY])]),
        never_whole: BTreeSet::from([PROFILE, MEMBER]),
        families: [PROFILE, MEMBER, PLAN]
            .into_iter()
            .flat_map(|table| (1..=4).map(move |column| ((table, column), vec![FAMILY])))
            .collect(),
        ..Facts::default()
    }
}

pub fn column(relation: usize, number: i16) -> Expr {
    outer(0, relation, number)
}

pub fn outer(up: usize, relation: usize, number: i16) -> Expr {
    Expr::Column { up, relation, number }
}

pub fn compare(oid: Oid, left: Expr, right: Expr) -> Expr {
    Expr::Operator(Box::new(Operator { oid, collation: 0, left, right: vec![right] }))
}

pub fn equal(left: Expr, right: Expr) -> Expr {
    compare(EQUAL, left, right)
}

pub fn constant(text: &str) -> Expr {
    Expr::Constant { r#type: 25, text: Some(text.into()) }
}

pub fn select(tables: &[Oid], from: Vec<Node>, filter: Option<Expr>, targets: Vec<Expr>) -> Query {
    let table = |oid: &Oid| Relation::Table { oid: *oid, alias: String::new() };
    let target = |(i, expr)| Target { expr, reference: i as u32 + 1, shown: true };
    Query {
        relations: tables.iter().map(table).collect(),
        from,
        filter,
        targets: targets.into_iter().enumerate().map(target).collect(),
        ..Query::default()
    }
}

pub fn groups(references: &[u32]) -> Vec<Group> {
    let group = |reference: &u32| Group { reference: *reference, by: (EQUAL, 0) };
    references.iter().map(group).collect()
}

pub fn join(kind: JoinKind, left: Node, right: Node, on: Expr) -> Node {
    Node::Join { kind, sides: Box::new([left, right]), on: Some(on) }
}

/// The profile and a subquery in its SELECT list.
pub fn showing(query: Query) -> Query {
    let shown = Expr::Query { query: Box::new(query), value: true, any: vec![], beside: vec![] };
    let targets = vec![column(0, 2), shown];
    select(&[PROFILE], vec![Node::Relation(0)], None, targets)
}

pub fn count(tables: &[Oid], filter: Expr) -> Query {
    Query {
        aggregates: true,
        ..select(
            tables,
            (0..tables.len()).map(Node::Relation).collect(),
            Some(filter),
            vec![Expr::Other(vec![])],
        )
    }
}

pub fn proven(view: &Query) -> Result<Proof, Error> {
    proven_by(view, &facts())
}

pub fn proven_by(view: &Query, facts: &Facts) -> Result<Proof, Error> {
    prove(view, PROFILE, |_, column| column == 2, facts, &|| ())
}

pub fn refused(view: &Query) -> String {
    match proven(view) {
        Ok(proof) => format!("accepted: {:?}", proof.ties),
        Err(Error::Untied { .. }) => "untied".into(),
        Err(Error::AskedWhole(_)) => "asked whole".into(),
        Err(Error::BehindWindow(_)) => "behind a window".into(),
        Err(Error::ManyRows(_)) => "many rows".into(),
        Err(Error::KeyDoesNotPass(_)) => "the key does not pass".into(),
        Err(other) => format!("{other:?}"),
    }
}

/// Another equality of the same columns' type, finer or coarser than its own; and a collation that
/// takes for equal what differs.
pub const OTHER: Oid = 98;
pub const BLURRED: Oid = 100;

pub fn with_others() -> Facts {
    let mut facts = facts();
    facts.equality.insert(OTHER, vec![FAMILY + 1]);
    facts.nondeterministic.insert(BLURRED);
    facts
}

/// What is below a view of `levels` levels, of which each doubles what is below it.
pub fn doubled(levels: usize, innermost: Query, level: impl Fn(Query) -> Query) -> Query {
    (0..levels).fold(innermost, |below, _| level(below))
}

pub fn subqueries(queries: Vec<Query>, targets: Vec<Expr>) -> Query {
    let from = (0..queries.len()).map(Node::Relation).collect();
    let relations = queries.into_iter().map(|q| Relation::Subquery(Box::new(q)));
    Query { relations: relations.collect(), ..select(&[], from, None, targets) }
}

pub fn too_complex(view: &Query) -> bool {
    matches!(proven(view), Err(Error::Unsupported(what)) if bounds::ALL.contains(&what))
}
