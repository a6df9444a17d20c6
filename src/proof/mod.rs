//! What a document depends on, proven from the view's query and the foreign keys, or refused.
//!
//! The room: the prover (here, `scopes`, `conditions`, `alternatives`, `claims`, `first_rows`, `ties`, `everyone`, `untied`,
//! `one_row`, `outer_joins`) is pure, no server in it, and goes by
//! what it is told ([`Facts`]). `facts`, `reach` and `volatility` read the catalogs, and change nothing;
//! `routes` makes of a proof what triggers need to know, and `discover` does it all for a view.
//!
//! Invariant: every range-table entry of a table in the view is *tied*. For one
//! profile, those of its rows that matter are found from that profile's row by equalities, step by
//! step; every other row could be missing, and the document were the same. README.md has the
//! argument. What is not recognized is refused: a refusal is cheap, a wrong guess a stale profile.
//!
//! A view of a few lines can be exponentially large once every use of a WITH query stands in its place. So
//! what was found out of a query once is remembered ([`Prover::outputs`] and its like), every step counts
//! against a bound, and at each the server may end the work ([`Prover::spend`]).
#![doc = include_str!("README.md")]

mod alternatives;
mod claims;
mod conditions;
pub mod discover;
mod everyone;
mod facts;
mod first_rows;
mod one_row;
mod outer_joins;
pub mod reach;
mod routes;
#[cfg(test)]
mod sample;
mod scopes;
mod ties;
mod untied;
mod volatility;

use crate::error::Error;
use crate::proof::alternatives::Alternatives;
use crate::query_tree::{EqualityOp, Expr, Oid, Query, bounds};
pub use claims::Partial;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// What the catalogs say about the tables that a view reads.
#[derive(Default, Debug)]
pub struct Facts {
    pub foreign_keys: Vec<ForeignKey>,
    pub unique: Vec<Unique>,
    /// Those that hold for some rows only.
    pub partial: Vec<Partial>,
    /// Operators that are equality for a btree, under whatever settings, and the families in which they are.
    pub equality: HashMap<Oid, Vec<Oid>>,
    /// Operator families in which a column's values are equal only if they are the same value to its
    /// own type: that of its type, and of a wider one to which it is cast without loss.
    pub families: HashMap<(Oid, i16), Vec<Oid>>,
    /// Collations under which different strings may be equal.
    pub nondeterministic: BTreeSet<Oid>,
    /// Of columns that have one.
    pub collations: HashMap<(Oid, i16), Oid>,
    /// Tables that are shown to everyone by mistake only: of which each row belongs to a profile, the profile's own
    /// among them.
    pub never_whole: BTreeSet<Oid>,
    /// Tables and columns as people write them.
    pub tables: HashMap<Oid, String>,
    pub columns: HashMap<(Oid, i16), String>,
}

/// Columns of two tables that are equal, and the operator that says so.
pub type Pairs = Vec<(i16, i16, Oid)>;

/// A validated, enforced foreign key.
#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub from: Oid,
    pub to: Oid,
    /// Referencing and referenced column, and their equality.
    pub columns: Pairs,
}

/// A unique index that holds at every moment and for every row.
#[derive(Clone, Debug)]
pub struct Unique {
    pub table: Oid,
    /// Column, operator family, collation.
    pub columns: Vec<(i16, Oid, Oid)>,
}

/// A range-table entry of a table.
#[derive(Debug)]
pub struct RangeTableEntry {
    pub table: Oid,
    alias: String,
    /// Columns that the view reads here; 0: all.
    pub columns: BTreeSet<i16>,
}

/// How a range-table entry is tied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tie {
    /// It is the profile.
    Profile,
    /// Its columns equal those of another range-table entry.
    To {
        other: usize,
        /// Its own, the other's, and the foreign key's equality.
        columns: Pairs,
        /// The other is the profile, and its columns are unique there.
        one_profile: bool,
    },
    /// Its column equals a constant, given as text with its type.
    Constant { column: i16, value: String, r#type: Oid },
    /// By nothing: every row of it matters to every profile.
    Everyone,
}

/// What was proven.
#[derive(Debug)]
pub struct Proof {
    pub rtes: Vec<RangeTableEntry>,
    /// Of each range-table entry: all of these together say which of its rows matter.
    pub ties: Vec<Vec<Tie>>,
    /// Which output column is the profile's key, and which of its columns that is.
    pub key: i16,
    pub key_column: i16,
    /// Range-table entries in a subquery that groups, tied only by how that is joined, and not by the key:
    /// PostgreSQL has to group the whole table for one profile.
    pub grouped: BTreeSet<usize>,
    /// Where the view takes the first of rows that may tie in its order.
    pub tied: BTreeSet<&'static str>,
    /// Which of the partial unique indexes it goes by.
    pub partial: BTreeSet<usize>,
}

/// A range-table entry's column.
pub type ColumnRef = (usize, i16);

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Column(ColumnRef),
    Constant { value: String, r#type: Oid },
}

/// All that a value may be, each once.
type Sources = Rc<[Source]>;

/// Range-table entries.
type Entries = BTreeSet<usize>;

/// What a condition leaves out rows of, and whether through a query that groups.
type Restricted = (Vec<ColumnRef>, bool);

/// A condition that leaves out all rows of a range-table entry but those with one of these values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Equality {
    pub place: ColumnRef,
    pub sources: Sources,
    pub by: EqualityOp,
    /// It joins a subquery that groups the rows: PostgreSQL moves a condition into that only where
    /// the value is known before.
    pub outside: bool,
}

/// A query at its place: one WITH query that is used twice has two.
pub struct Scope<'a> {
    pub query: &'a Query,
    pub outer: Option<usize>,
    pub slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
pub enum Slot {
    Table(usize),
    Query(usize),
    Other,
}

/// A scope, and the output columns that are given.
pub type Asked = (usize, Vec<i16>);

pub struct Prover<'a> {
    pub facts: &'a Facts,
    pub scopes: Vec<Scope<'a>>,
    /// The scopes of subqueries in expressions, by where they stand.
    nested: HashMap<(usize, *const Query), usize>,
    pub rtes: Vec<RangeTableEntry>,
    /// Of each range-table entry, each once.
    equalities: Vec<Vec<Equality>>,
    noted: HashSet<Equality>,
    /// Of each range-table entry, what ORs say of it.
    alternatives: Vec<Vec<Alternatives>>,
    /// What has been found out of a query: of its output columns, and by which of them it has one row.
    outputs: RefCell<HashMap<(usize, i16), Option<Sources>>>,
    passing: RefCell<HashMap<(usize, i16), Option<Restricted>>>,
    pub one_rows: RefCell<HashMap<Asked, Result<(), Error>>>,
    pub besides: RefCell<HashMap<usize, Rc<BTreeSet<usize>>>>,
    equals: RefCell<HashMap<ColumnRef, Rc<[ColumnRef]>>>,
    partial: RefCell<BTreeSet<usize>>,
    /// What a query's output column draws from.
    drawn: RefCell<HashMap<(usize, i16), Rc<Entries>>>,
    steps: Cell<usize>,
    pub pause: &'a dyn Fn(),
}

/// Proves what the view depends on. `is_key` says which output column (from 1) that shows which column
/// of the table `profile` may be the key. `pause` is called all the time: it may end the work.
pub fn prove(
    view: &Query,
    profile: Oid,
    is_key: impl Fn(i16, i16) -> bool,
    facts: &Facts,
    pause: &dyn Fn(),
) -> Result<Proof, Error> {
    let mut prover = Prover {
        facts,
        scopes: vec![],
        nested: HashMap::new(),
        rtes: vec![],
        equalities: vec![],
        noted: HashSet::new(),
        alternatives: vec![],
        outputs: RefCell::default(),
        passing: RefCell::default(),
        one_rows: RefCell::default(),
        besides: RefCell::default(),
        equals: RefCell::default(),
        partial: RefCell::default(),
        drawn: RefCell::default(),
        steps: Cell::new(0),
        pause,
    };
    let proof = prover.prove(view, profile, is_key);
    // Whatever was found: the last of it was not looked at.
    if prover.is_spent() {
        return Err(Error::Unsupported(bounds::MANY_STEPS));
    }
    let (key, key_column, ties, grouped, tied) = proof?;
    let partial = prover.partial.take();
    Ok(Proof { tied, rtes: prover.rtes, ties, key, key_column, grouped, partial })
}

type Proven = (i16, i16, Vec<Vec<Tie>>, BTreeSet<usize>, BTreeSet<&'static str>);

impl<'a> Prover<'a> {
    fn prove(
        &mut self,
        view: &'a Query,
        profile: Oid,
        is_key: impl Fn(i16, i16) -> bool,
    ) -> Result<Proven, Error> {
        let top = self.enter(view, None, 0)?;
        for scope in 0..self.scopes.len() {
            self.read_columns(scope)?;
        }
        self.equalities = vec![vec![]; self.rtes.len()];
        self.alternatives = vec![vec![]; self.rtes.len()];
        for scope in 0..self.scopes.len() {
            self.find_equalities(scope);
        }
        let (key, (root, key_column)) = self.key(top, profile, is_key)?;
        let (ties, grouped) = self.tie(root, key_column)?;
        self.one_row(top, &[key], (root, key_column)).map_err(|e| self.many_numbered(e))?;
        let tied = self.tied((root, key_column));
        Ok((key, key_column, ties, grouped, tied))
    }

    /// Where rows are numbered, that is what was to make them one.
    fn many_numbered(&self, error: Error) -> Error {
        match error {
            Error::ManyRows(what) if self.scopes.iter().any(|s| !s.query.numbered.is_empty()) => {
                Error::ManyNumbered(what)
            }
            other => other,
        }
    }

    /// Counts so many steps; whether that is too many in all. Then whoever asks may answer what he likes: the
    /// proof is refused.
    pub fn spend(&self, steps: usize) -> bool {
        const PAUSE: usize = 1000;
        let before = self.steps.get();
        let after = before.saturating_add(steps);
        if before / PAUSE != after / PAUSE {
            (self.pause)();
        }
        self.steps.set(after);
        self.is_spent()
    }

    fn is_spent(&self) -> bool {
        self.steps.get() > bounds::STEPS
    }

    /// The output column that is the profile's key, and which column of which range-table entry that is.
    fn key(
        &self,
        top: usize,
        profile: Oid,
        is_key: impl Fn(i16, i16) -> bool,
    ) -> Result<(i16, ColumnRef), Error> {
        let query = self.scopes[top].query;
        let mut merely_shown = false;
        let shown = query.targets.iter().take_while(|t| t.shown).count();
        for number in 1..=i16::try_from(shown).unwrap_or(i16::MAX) {
            let fits = |p: &ColumnRef| self.rtes[p.0].table == profile && is_key(number, p.1);
            match self.passes(top, number).map(|(places, _)| places).as_deref() {
                Some([place]) if fits(place) => return Ok((number, *place)),
                _ => {
                    let column =
                        matches!(query.targets[number as usize - 1].expr, Expr::Column { .. });
                    let plain = column || !query.arms.is_empty();
                    let shows = |s: &Source| matches!(s, Source::Column(p) if fits(p));
                    let shown = self.output(top, number).filter(|_| plain);
                    merely_shown |= shown.is_some_and(|all| all.iter().any(shows));
                }
            }
        }
        let table = self.table(profile);
        Err(if merely_shown { Error::KeyDoesNotPass(table) } else { Error::NoKeyInView(table) })
    }

    /// For messages, as the next ones: its number will do.
    fn table(&self, oid: Oid) -> String {
        self.facts.tables.get(&oid).cloned().unwrap_or_else(|| oid.to_string())
    }

    fn column(&self, table: Oid, number: i16) -> String {
        let name = self.facts.columns.get(&(table, number));
        name.cloned().unwrap_or_else(|| number.to_string())
    }

    /// A range-table entry's table, with its alias where it has another name in the view.
    pub fn rte_name(&self, rte: usize) -> String {
        let o = &self.rtes[rte];
        let table = self.table(o.table);
        let own = table.rsplit('.').next().unwrap_or(&table);
        if o.alias.is_empty() || own == o.alias { table } else { format!("{table} AS {}", o.alias) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::sample::*;
    use crate::query_tree::{Limit, Node, Relation, With};

    #[test]
    fn with_queries_that_are_used_twice_are_refused_beyond_a_bound() {
        let twice = |below: Query| Query {
            relations: ["a", "b"].map(|_| Relation::With { name: "w".into(), up: 0 }).to_vec(),
            with: vec![With { name: "w".into(), query: below, recursive: false }],
            ..select(&[], vec![Node::Relation(0), Node::Relation(1)], None, vec![column(0, 1)])
        };
        let view = |levels| {
            let innermost = select(&[], vec![], None, vec![constant("1")]);
            let mut view = showing(doubled(levels, innermost, twice));
            view.limit = Limit::None;
            view
        };
        assert!(proven(&view(8)).is_ok());
        assert!(too_complex(&view(40)));
    }

    #[test]
    fn more_steps_or_levels_than_are_allowed_are_refused() {
        let plain = || {
            let targets = vec![column(0, 2), column(0, 1)];
            select(&[PROFILE], vec![Node::Relation(0)], None, targets)
        };
        let nested = |below| subqueries(vec![below], vec![column(0, 1), column(0, 2)]);
        assert!(proven(&doubled(bounds::LEVELS - 1, plain(), nested)).is_ok());
        assert!(too_complex(&doubled(bounds::LEVELS, plain(), nested)));
        // Each of many tables compared with each, and one that is not.
        let joined = |n: usize| {
            let pairs = (1..n).flat_map(|i| (1..i).map(move |j| equal(column(i, 3), column(j, 3))));
            let conditions = pairs.chain([equal(column(1, 2), column(0, 1))]).collect();
            let tables: Vec<Oid> = (0..n).map(|i| if i == 0 { PROFILE } else { MEMBER }).collect();
            Query {
                aggregates: true,
                group_by: groups(&[1]),
                ..select(
                    &tables,
                    (0..n).map(Node::Relation).collect(),
                    Some(Expr::And(conditions)),
                    vec![column(0, 2)],
                )
            }
        };
        assert!(proven(&joined(20)).is_ok(), "{}", refused(&joined(20)));
        assert!(too_complex(&joined(100)), "{}", refused(&joined(100)));
    }

    #[test]
    fn the_server_may_end_a_proof() {
        let paused = Cell::new(0);
        let view = showing(count(&[MEMBER], equal(column(0, 2), outer(1, 0, 1))));
        let pause = || paused.set(paused.get() + 1);
        assert!(prove(&view, PROFILE, |_, c| c == 2, &facts(), &pause).is_ok());
        assert!(paused.get() > 2);
    }
}
