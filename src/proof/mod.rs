//! What a document depends on, proven from the view's query and the foreign keys, or refused.
//!
//! Pure: no server here. Invariant: every occurrence of a table in the view is *tied*. For one
//! profile, those of its rows that matter are found from that profile's row by equalities, step by
//! step; every other row could be missing, and the document were the same. ARCHITECTURE.md has the
//! argument. What is not recognized is refused: a refusal is cheap, a wrong guess a stale profile.
//!
//! A view of a few lines can be exponentially large once every use of a WITH query stands in its place. So
//! what was found out of a query once is remembered ([`Prover::outputs`] and its like), every step counts
//! against a bound, and at each the server may end the work ([`Prover::spend`]).

pub mod discover;
pub mod one_row;
pub mod reach;
pub mod routes;
pub mod volatility;

use crate::error::Error;
use crate::query_tree::{
    By, Condition, Expr, JoinKind, Node, Oid, Query, Relation, Target, bounds,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// What the catalogs say about the tables that a view reads.
#[derive(Default, Debug)]
pub struct Facts {
    pub foreign_keys: Vec<ForeignKey>,
    pub unique: Vec<Unique>,
    /// Operators that are equality for a btree, under whatever settings, and the families in which they are.
    pub equality: HashMap<Oid, Vec<Oid>>,
    /// Operator families in which a column's values are equal only if they are the same value to its
    /// own type: that of its type, and of a wider one to which it is cast without loss.
    pub families: HashMap<(Oid, i16), Vec<Oid>>,
    /// Collations under which different strings may be equal.
    pub nondeterministic: BTreeSet<Oid>,
    /// Of columns that have one.
    pub collations: HashMap<(Oid, i16), Oid>,
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

/// An occurrence of a table.
#[derive(Debug)]
pub struct Occurrence {
    pub table: Oid,
    alias: String,
    /// Columns that the view reads here; 0: all.
    pub columns: BTreeSet<i16>,
}

/// How an occurrence is tied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tie {
    /// It is the profile.
    Profile,
    /// Its columns equal those of another occurrence.
    To {
        other: usize,
        /// Its own, the other's, and the foreign key's equality.
        columns: Pairs,
        /// By its own foreign key to the other.
        child: bool,
    },
    /// Its column equals a constant, given as text with its type.
    Constant { column: i16, value: String, r#type: Oid },
}

/// What was proven.
#[derive(Debug)]
pub struct Proof {
    pub occurrences: Vec<Occurrence>,
    /// Of each occurrence: all of these together say which of its rows matter.
    pub ties: Vec<Vec<Tie>>,
    /// Which output column is the profile's key, and which of its columns that is.
    pub key: i16,
    pub key_column: i16,
    /// Occurrences in a subquery that groups, tied only by how that is joined, and not by the key:
    /// PostgreSQL has to group the whole table for one profile.
    pub grouped: BTreeSet<usize>,
    /// Where the view takes the first of rows that may tie in its order.
    pub tied: BTreeSet<&'static str>,
}

/// An occurrence's column.
pub type Place = (usize, i16);

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Place(Place),
    Constant { value: String, r#type: Oid },
}

/// All that a value may be, each once.
type Sources = Rc<[Source]>;

/// What a condition leaves out rows of, and whether through a query that groups.
type Restricted = (Vec<Place>, bool);

/// A condition that leaves out all rows of an occurrence but those with one of these values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Equality {
    pub place: Place,
    pub sources: Sources,
    pub by: By,
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
    pub occurrences: Vec<Occurrence>,
    /// Of each occurrence, each once.
    equalities: Vec<Vec<Equality>>,
    noted: HashSet<Equality>,
    /// What has been found out of a query: of its output columns, and by which of them it has one row.
    outputs: RefCell<HashMap<(usize, i16), Option<Sources>>>,
    passing: RefCell<HashMap<(usize, i16), Option<Restricted>>>,
    pub one_rows: RefCell<HashMap<Asked, Result<(), Error>>>,
    pub besides: RefCell<HashMap<usize, Rc<BTreeSet<usize>>>>,
    equals: RefCell<HashMap<Place, Rc<[Place]>>>,
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
        occurrences: vec![],
        equalities: vec![],
        noted: HashSet::new(),
        outputs: RefCell::default(),
        passing: RefCell::default(),
        one_rows: RefCell::default(),
        besides: RefCell::default(),
        equals: RefCell::default(),
        steps: Cell::new(0),
        pause,
    };
    let proof = prover.prove(view, profile, is_key);
    // Whatever was found: the last of it was not looked at.
    if prover.is_spent() {
        return Err(Error::Unsupported(bounds::MANY_STEPS));
    }
    let (key, key_column, ties, grouped, tied) = proof?;
    Ok(Proof { tied, occurrences: prover.occurrences, ties, key, key_column, grouped })
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
        self.equalities = vec![vec![]; self.occurrences.len()];
        for scope in 0..self.scopes.len() {
            self.find_equalities(scope);
        }
        let (key, (root, key_column)) = self.key(top, profile, is_key)?;
        let (ties, grouped) = self.tie(root, key_column)?;
        self.one_row(top, &[key], (root, key_column))?;
        let tied = self.tied((root, key_column));
        Ok((key, key_column, ties, grouped, tied))
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

    /// Takes a query in, and all that is nested in it; it stands so many queries deep.
    fn enter(
        &mut self,
        query: &'a Query,
        outer: Option<usize>,
        level: usize,
    ) -> Result<usize, Error> {
        if let Some(what) = query.unsupported {
            return Err(Error::Unsupported(what));
        }
        (self.pause)();
        if level >= bounds::LEVELS {
            return Err(Error::Unsupported(bounds::MANY_LEVELS));
        }
        if self.scopes.len() >= bounds::QUERIES {
            return Err(Error::Unsupported(bounds::MANY_QUERIES));
        }
        let scope = self.scopes.len();
        self.scopes.push(Scope { query, outer, slots: vec![] });
        for relation in &query.relations {
            let slot = match relation {
                Relation::Table { oid, alias } => {
                    if self.occurrences.len() >= bounds::TABLES {
                        return Err(Error::Unsupported(bounds::MANY_TABLES));
                    }
                    self.occurrences.push(Occurrence {
                        table: *oid,
                        alias: alias.clone(),
                        columns: BTreeSet::new(),
                    });
                    Slot::Table(self.occurrences.len() - 1)
                }
                Relation::Subquery(q) => Slot::Query(self.enter(q, Some(scope), level + 1)?),
                Relation::With { name, up } => {
                    let home = self.out(scope, *up)?;
                    let with = self.scopes[home].query.with.iter().find(|w| w.name == *name);
                    match with {
                        Some(w) if w.recursive => {
                            return Err(Error::Unsupported("WITH RECURSIVE"));
                        }
                        Some(w) => Slot::Query(self.enter(&w.query, Some(home), level + 1)?),
                        None => return Err(Error::Internal(format!("WITH {name} is nowhere"))),
                    }
                }
                Relation::Unsupported { what } => return Err(Error::Unsupported(what)),
                Relation::Join(_) | Relation::Values(_) | Relation::Empty => Slot::Other,
            };
            self.scopes[scope].slots.push(slot);
        }
        if query.from.iter().any(has_full_join) {
            return Err(Error::Unsupported("FULL JOIN"));
        }
        for expr in query.expressions() {
            self.enter_nested(expr, scope, level)?;
        }
        Ok(scope)
    }

    fn enter_nested(&mut self, expr: &'a Expr, scope: usize, level: usize) -> Result<(), Error> {
        if self.spend(1) {
            return Err(Error::Unsupported(bounds::MANY_STEPS));
        }
        if let Expr::Query { query, .. } = expr {
            let inner = self.enter(query, Some(scope), level + 1)?;
            self.nested.insert((scope, std::ptr::from_ref(&**query)), inner);
        }
        for part in expr.parts() {
            self.enter_nested(part, scope, level)?;
        }
        Ok(())
    }

    /// The scope `up` queries out.
    pub fn out(&self, scope: usize, up: usize) -> Result<usize, Error> {
        (0..up).try_fold(scope, |s, _| {
            self.scopes[s]
                .outer
                .ok_or_else(|| Error::Internal("a column of a query that is not there".into()))
        })
    }

    /// Notes which columns of which occurrence a query reads.
    fn read_columns(&mut self, scope: usize) -> Result<(), Error> {
        let query = self.scopes[scope].query;
        query.expressions().into_iter().try_for_each(|e| self.read(e, scope))
    }

    fn read(&mut self, expr: &'a Expr, scope: usize) -> Result<(), Error> {
        if self.spend(1) {
            return Err(Error::Unsupported(bounds::MANY_STEPS));
        }
        if let Expr::Column { up, relation, number } = expr {
            let home = self.out(scope, *up)?;
            match (
                self.scopes[home].slots.get(*relation),
                self.scopes[home].query.relations.get(*relation),
            ) {
                (Some(Slot::Table(occurrence)), _) => {
                    self.occurrences[*occurrence].columns.insert(*number);
                }
                (_, Some(Relation::Join(columns))) => {
                    // A join's whole row is all that it consists of.
                    let named = usize::try_from(*number - 1).ok().and_then(|n| columns.get(n));
                    match named {
                        Some(column) => self.read(column, home)?,
                        None => columns.iter().try_for_each(|c| self.read(c, home))?,
                    }
                }
                _ => {}
            }
        }
        expr.parts().into_iter().try_for_each(|p| self.read(p, scope))
    }

    /// What a value of `expr` in `scope` may be; None where that is computed.
    fn sources(&self, scope: usize, expr: &Expr) -> Option<Sources> {
        if self.spend(1) {
            return None;
        }
        match expr {
            Expr::Constant { text: None, .. } => Some(Rc::new([])),
            Expr::Constant { text: Some(value), r#type } => {
                Some(Rc::new([Source::Constant { value: value.clone(), r#type: *r#type }]))
            }
            Expr::Either { results, .. } => self.all_sources(scope, results),
            Expr::Query { query, value: true, .. } => {
                let inner = self.nested.get(&(scope, std::ptr::from_ref(&**query)))?;
                self.output(*inner, 1)
            }
            Expr::Column { up, relation, number } => {
                let home = self.out(scope, *up).ok()?;
                match (
                    self.scopes[home].slots[*relation],
                    &self.scopes[home].query.relations[*relation],
                ) {
                    (Slot::Table(occurrence), _) => {
                        let place = Source::Place((occurrence, *number));
                        (*number > 0).then(|| -> Sources { Rc::new([place]) })
                    }
                    (Slot::Query(inner), _) => self.output(inner, *number),
                    (_, Relation::Join(columns)) => {
                        self.sources(home, columns.get(usize::try_from(*number - 1).ok()?)?)
                    }
                    (_, Relation::Values(rows)) => {
                        let n = usize::try_from(*number - 1).ok()?;
                        self.any_of(rows.iter().map(|row| self.sources(home, row.get(n)?)))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn all_sources(&self, scope: usize, exprs: &[Expr]) -> Option<Sources> {
        self.any_of(exprs.iter().map(|e| self.sources(scope, e)))
    }

    /// What a value may be that is one of several.
    fn any_of(&self, several: impl Iterator<Item = Option<Sources>>) -> Option<Sources> {
        let (mut known, mut all) = (HashSet::new(), vec![]);
        for sources in several {
            let sources = sources?;
            // Each is a text to be copied, perhaps.
            if self.spend(10 * sources.len()) {
                return None;
            }
            let new = sources.iter().filter(|s| known.insert((*s).clone()));
            all.extend(new.cloned());
        }
        Some(all.into())
    }

    /// What a value of a query's output column may be.
    fn output(&self, scope: usize, number: i16) -> Option<Sources> {
        if let Some(known) = self.outputs.borrow().get(&(scope, number)) {
            return known.clone();
        }
        let query = self.scopes[scope].query;
        let found = if query.arms.is_empty() {
            let target = query.target(number);
            target.and_then(|t| self.sources(scope, &t.expr))
        } else {
            let arms = self.arms(scope).into_iter();
            self.any_of(arms.map(|arm| self.output(arm?, number)))
        };
        self.outputs.borrow_mut().insert((scope, number), found.clone());
        found
    }

    fn arms(&self, scope: usize) -> Vec<Option<usize>> {
        let arm = |r: &usize| match self.scopes[scope].slots[*r] {
            Slot::Query(inner) => Some(inner),
            _ => None,
        };
        self.scopes[scope].query.arms.iter().map(arm).collect()
    }

    /// The columns whose rows a condition on `expr`, above the relations `over` of a query, leaves
    /// out; and whether it gets to them through a query that groups. None where it does not.
    fn restricts(&self, scope: usize, expr: &Expr, over: Option<&[usize]>) -> Option<Restricted> {
        let (relation, number) = self.own_column(scope, expr)?;
        if over.is_some_and(|over| !over.contains(&relation)) {
            return None;
        }
        match self.scopes[scope].slots[relation] {
            Slot::Table(occurrence) => (number > 0).then(|| (vec![(occurrence, number)], false)),
            Slot::Query(inner) => self.passes(inner, number),
            Slot::Other => None,
        }
    }

    /// The same for a condition on a query's output column. Where the query takes rows for the same, by
    /// grouping, DISTINCT, UNION or a window, it must go by the column's own equality, as the condition does:
    /// by a coarser one a row that the condition leaves out may be merged with one that it keeps.
    pub fn passes(&self, scope: usize, number: i16) -> Option<Restricted> {
        if let Some(known) = self.passing.borrow().get(&(scope, number)) {
            return known.clone();
        }
        let found = self.find_passes(scope, number);
        self.passing.borrow_mut().insert((scope, number), found.clone());
        found
    }

    fn find_passes(&self, scope: usize, number: i16) -> Option<Restricted> {
        let query = self.scopes[scope].query;
        let size = query.targets.len() + query.group_by.len() + query.windows.len();
        if self.spend(size) || !query.passes(number) {
            return None;
        }
        let groups = query.grouped() || !query.distinct.is_empty() || !query.windows.is_empty();
        let mut all = (vec![], groups);
        if query.arms.is_empty() {
            let (places, inside) = self.restricts(scope, &query.target(number)?.expr, None)?;
            all = (places, groups || inside);
        }
        for arm in self.arms(scope) {
            let (places, inside) = self.passes(arm?, number)?;
            all.0.extend(places);
            all.1 |= inside;
        }
        let own = |by| all.0.iter().all(|p| self.exact(by, &[self.base(*p)]));
        (query.merged_by(number).into_iter().all(own) && self.keeps_rows(scope, number))
            .then_some(all)
    }

    /// Where a grouped query shows a column that it does not group by, whether each group has one row of that
    /// table: PostgreSQL asks that a primary key be grouped by, but not under which collation.
    fn keeps_rows(&self, scope: usize, number: i16) -> bool {
        let query = self.scopes[scope].query;
        let Some(target) = query.target(number).filter(|_| query.grouped()) else {
            return true;
        };
        if query.group_by.iter().any(|g| target.is(g.reference)) {
            return true;
        }
        let Some((relation, _)) = self.own_column(scope, &target.expr) else {
            return false;
        };
        let grouped = query.group_by.iter().flat_map(|g| {
            let of = |t: &&Target| t.is(g.reference);
            query.targets.iter().find(of).map(|t| (t, g.by))
        });
        let grouped: Vec<(i16, Option<By>)> = grouped
            .filter_map(|(t, by)| {
                let (of, number) = self.own_column(scope, &t.expr)?;
                (of == relation).then_some((number, Some(by)))
            })
            .collect();
        match self.scopes[scope].slots[relation] {
            Slot::Table(occurrence) => self.unique(occurrence, &grouped, None),
            _ => false,
        }
    }

    /// The equalities among a query's conditions.
    fn find_equalities(&mut self, scope: usize) {
        let query = self.scopes[scope].query;
        for Condition { expr, over } in query.conditions() {
            if self.spend(1 + over.len()) {
                return;
            }
            match expr {
                Expr::Operator(o) => {
                    let by = (o.oid, o.collation);
                    let sources = self.all_sources(scope, &o.right);
                    let restricted = self.restricts(scope, &o.left, Some(&over));
                    let beside = o.right.iter().any(Expr::is_of_this_query);
                    self.note(by, restricted, sources, beside);
                    if let [right] = &o.right[..] {
                        let sources = self.sources(scope, &o.left);
                        let restricted = self.restricts(scope, right, Some(&over));
                        self.note(by, restricted, sources, o.left.is_of_this_query());
                    }
                }
                Expr::Query { query: inner, any: Some(any), .. } => {
                    let Some(inner) = self.nested.get(&(scope, std::ptr::from_ref(&**inner)))
                    else {
                        continue;
                    };
                    let (inner, by) = (*inner, (any.operator, any.collation));
                    let sources = self.output(inner, 1);
                    let restricted = self.restricts(scope, &any.left, Some(&over));
                    self.note(by, restricted, sources, true);
                    let sources = self.sources(scope, &any.left);
                    let beside = any.left.is_of_this_query();
                    self.note(by, self.passes(inner, 1), sources, beside);
                }
                _ => {}
            }
        }
    }

    /// `beside`: the value comes from another relation of the same query.
    fn note(
        &mut self,
        by: By,
        restricted: Option<Restricted>,
        sources: Option<Sources>,
        beside: bool,
    ) {
        let (Some((places, grouped)), Some(sources)) = (restricted, sources) else {
            return;
        };
        if !self.facts.equality.contains_key(&by.0) {
            return;
        }
        for place in places {
            if self.spend(1 + sources.len()) {
                return;
            }
            let equality =
                Equality { place, sources: sources.clone(), by, outside: grouped && beside };
            if self.noted.insert(equality.clone()) {
                self.equalities[place.0].push(equality);
            }
        }
    }

    /// The output column that is the profile's key, and which column of which occurrence that is.
    fn key(
        &self,
        top: usize,
        profile: Oid,
        is_key: impl Fn(i16, i16) -> bool,
    ) -> Result<(i16, Place), Error> {
        let query = self.scopes[top].query;
        let mut merely_shown = false;
        let shown = query.targets.iter().take_while(|t| t.shown).count();
        for number in 1..=i16::try_from(shown).unwrap_or(i16::MAX) {
            let fits = |p: &Place| self.occurrences[p.0].table == profile && is_key(number, p.1);
            match self.passes(top, number).map(|(places, _)| places).as_deref() {
                Some([place]) if fits(place) => return Ok((number, *place)),
                _ => {
                    let column =
                        matches!(query.targets[number as usize - 1].expr, Expr::Column { .. });
                    let plain = column || !query.arms.is_empty();
                    let shown = self.output(top, number).filter(|_| plain).unwrap_or_default();
                    merely_shown |= shown.iter().any(|s| matches!(s, Source::Place(p) if fits(p)));
                }
            }
        }
        let table = self.table(profile);
        Err(if merely_shown { Error::KeyDoesNotPass(table) } else { Error::NoKeyInView(table) })
    }

    /// Ties every occurrence, nearest to the profile first.
    fn tie(&self, root: usize, key_column: i16) -> Result<(Vec<Vec<Tie>>, BTreeSet<usize>), Error> {
        let mut ties: Vec<Vec<Tie>> = vec![vec![]; self.occurrences.len()];
        let mut grouped = BTreeSet::new();
        ties[root] = vec![Tie::Profile];
        // Constants come last: a tie to the profile concerns fewer.
        for constants in [false, true] {
            loop {
                let mut found = vec![];
                for occurrence in 0..ties.len() {
                    if ties[occurrence].is_empty()
                        && let Some((tie, outside)) = self.ties_of(occurrence, &ties, constants)
                    {
                        found.push((occurrence, tie, outside));
                    }
                }
                if found.is_empty() {
                    break;
                }
                for (occurrence, tie, outside) in found {
                    let to_key = matches!(&tie[..], [Tie::To { other, columns, .. }]
                        if *other == root && columns.iter().any(|c| c.1 == key_column));
                    if outside && !to_key {
                        grouped.insert(occurrence);
                    }
                    ties[occurrence] = tie;
                }
            }
        }
        match ties.iter().position(Vec::is_empty) {
            None => Ok((ties, grouped)),
            Some(untied) => Err(self.untied(untied, &ties)),
        }
    }

    /// How an occurrence is tied to what is tied already, the best way first; and whether by a
    /// condition outside of a query that groups its rows.
    fn ties_of(
        &self,
        occurrence: usize,
        ties: &[Vec<Tie>],
        constants: bool,
    ) -> Option<(Vec<Tie>, bool)> {
        let mine = || self.equalities[occurrence].iter();
        if self.spend(mine().len()) {
            return None;
        }
        // By whole foreign keys, of one column or several.
        let mut pairs: BTreeMap<usize, Vec<(i16, i16, &Equality)>> = BTreeMap::new();
        for e in mine() {
            let places = self.equal_places(e);
            if self.spend(places.len()) {
                return None;
            }
            for &(other, column) in places.iter() {
                if other != occurrence && !ties[other].is_empty() {
                    let pair = (e.place.1, column, e);
                    pairs.entry(other).or_default().push(pair);
                }
            }
        }
        let mut best: Option<(u8, Tie, bool)> = None;
        for (other, pairs) in &pairs {
            // The same row once more, found by its own key.
            let table = self.occurrences[occurrence].table;
            if table == self.occurrences[*other].table
                && let Some(same) = pairs.iter().find(|(x, y, e)| {
                    x == y && self.is_key(table, *x, e.by.1) && self.exact(e.by, &[(table, *x)])
                })
            {
                return Some((ties[*other].clone(), same.2.outside));
            }
            for (rank, columns) in self.tying(occurrence, *other, pairs) {
                let child = rank == 0;
                // A foreign key to the profile itself is the best there is.
                let to_profile = ties[*other] == [Tie::Profile];
                let rank = rank * 2 + u8::from(!to_profile);
                if best.as_ref().is_none_or(|b| rank < b.0) {
                    let outside =
                        pairs.iter().any(|p| p.2.outside && columns.iter().any(|c| c.0 == p.0));
                    let tie = Tie::To { other: *other, columns, child };
                    best = Some((rank, tie, outside));
                }
            }
        }
        if let Some((_, tie, outside)) = best {
            return Some((vec![tie], outside));
        }
        // By one column that is one of several values: constants, or columns of what is tied.
        for e in mine() {
            if self.spend(1 + e.sources.len()) {
                return None;
            }
            let only_constants = e.sources.iter().all(|s| matches!(s, Source::Constant { .. }));
            if only_constants && !constants {
                continue;
            }
            let ties: Option<Vec<Tie>> =
                e.sources.iter().map(|s| self.by_source(e, s, ties)).collect();
            if let Some(mut ties) = ties
                && !ties.is_empty()
            {
                ties.dedup();
                return Some((ties, e.outside));
            }
        }
        None
    }

    /// One of the values that an equality allows, as a tie.
    fn by_source(&self, e: &Equality, source: &Source, ties: &[Vec<Tie>]) -> Option<Tie> {
        let (occurrence, column) = e.place;
        match source {
            Source::Constant { value, r#type } => {
                let table = self.occurrences[occurrence].table;
                let key =
                    self.is_key(table, column, e.by.1) && self.exact(e.by, &[(table, column)]);
                key.then(|| Tie::Constant { column, value: value.clone(), r#type: *r#type })
            }
            Source::Place((other, theirs)) => {
                if *other == occurrence || ties[*other].is_empty() {
                    return None;
                }
                let pairs = [(column, *theirs, e)];
                let (rank, columns) = self.tying(occurrence, *other, &pairs).into_iter().next()?;
                Some(Tie::To { other: *other, columns, child: rank == 0 })
            }
        }
    }

    /// Whether a column is unique by itself, by its type's own equality under a collation.
    fn is_key(&self, table: Oid, column: i16, under: Oid) -> bool {
        let own = self.facts.families.get(&(table, column));
        self.facts.unique.iter().any(|u| {
            u.table == table
                && matches!(u.columns[..], [(c, family, collation)]
                    if c == column && own.is_some_and(|own| own.contains(&family))
                        && self.tells_apart(under, collation))
        })
    }

    /// Whether what a unique index under `collation` holds apart is apart under another one, too.
    pub fn tells_apart(&self, under: Oid, collation: Oid) -> bool {
        !self.facts.nondeterministic.contains(&under) || collation == under
    }

    pub fn base(&self, place: Place) -> (Oid, i16) {
        (self.occurrences[place.0].table, place.1)
    }

    /// The places whose value is the one that an equality gives, directly or because they equal one
    /// another.
    fn equal_places(&self, e: &Equality) -> Rc<[Place]> {
        match self.equal_place(e) {
            Some(place) => self.equal_to(place),
            None => Rc::new([]),
        }
    }

    fn equal_place(&self, e: &Equality) -> Option<Place> {
        match e.sources[..] {
            [Source::Place(place)] => {
                let exact = self.exact(e.by, &[self.base(e.place), self.base(place)]);
                exact.then_some(place)
            }
            _ => None,
        }
    }

    /// A place, and those that it equals.
    fn equal_to(&self, place: Place) -> Rc<[Place]> {
        if let Some(known) = self.equals.borrow().get(&place) {
            return known.clone();
        }
        let (mut found, mut known) = (vec![], HashSet::new());
        let mut next = vec![place];
        while let Some(place) = next.pop() {
            if known.insert(place) {
                found.push(place);
                let theirs = &self.equalities[place.0];
                if self.spend(10 * theirs.len()) {
                    break;
                }
                let theirs = theirs.iter().filter(|e| e.place == place);
                next.extend(theirs.filter_map(|e| self.equal_place(e)));
            }
        }
        let found: Rc<[Place]> = found.into();
        self.equals.borrow_mut().insert(place, found.clone());
        found
    }

    /// Whether an equality of these columns means what `=` between them means, and neither cast nor
    /// collation takes for equal what differs: routes compare the columns as they are.
    pub fn exact(&self, (operator, collation): By, columns: &[(Oid, i16)]) -> bool {
        let families = self.facts.equality.get(&operator);
        let own = |c: &(Oid, i16)| {
            let (own, all) = (self.facts.families.get(c), families);
            own.zip(all).is_some_and(|(own, all)| own.iter().any(|f| all.contains(f)))
        };
        let collations = || columns.iter().filter_map(|c| self.facts.collations.get(c));
        let blurred = |c: &Oid| self.facts.nondeterministic.contains(c);
        columns.iter().all(own)
            && (!collations().chain([&collation]).any(blurred)
                || collations().all(|c| *c == collation))
    }

    /// Whether a foreign key means by equal what its columns' own types do: it goes by the unique index that it
    /// refers to, which may have another operator class, and compares under the referenced column's collation.
    fn sound(&self, fk: &ForeignKey) -> bool {
        fk.columns.iter().all(|(x, y, operator)| {
            let to = (fk.to, *y);
            self.exact((*operator, self.collation(to)), &[(fk.from, *x), to])
        })
    }

    /// A column's own collation; 0: it has none.
    pub fn collation(&self, column: (Oid, i16)) -> Oid {
        let own = self.facts.collations.get(&column);
        own.copied().unwrap_or_default()
    }

    /// Column pairs of two occurrences that are a foreign key (rank 0: from the first, 1: from the
    /// second), or foreign keys of both to the same columns (2).
    fn tying(
        &self,
        first: usize,
        second: usize,
        pairs: &[(i16, i16, &Equality)],
    ) -> Vec<(u8, Pairs)> {
        if self.spend(pairs.len() * self.facts.foreign_keys.len()) {
            return vec![];
        }
        let (a, b) = (self.occurrences[first].table, self.occurrences[second].table);
        // By an exact equality, and so by the foreign key's: both are that of the columns' own type.
        let equal = |x: i16, y: i16| {
            pairs.iter().any(|(p, q, e)| (*p, *q) == (x, y) && self.exact(e.by, &[(a, x), (b, y)]))
        };
        let mut found = vec![];
        for fk in self.facts.foreign_keys.iter().filter(|k| self.sound(k)) {
            if fk.from == a && fk.to == b && fk.columns.iter().all(|(x, y, _)| equal(*x, *y)) {
                found.push((0, fk.columns.clone()));
            }
            if fk.from == b && fk.to == a && fk.columns.iter().all(|(y, x, _)| equal(*x, *y)) {
                let columns = fk.columns.iter().map(|(y, x, o)| (*x, *y, *o)).collect();
                found.push((1, columns));
            }
        }
        // Both refer to the same row of some table, which the view need not read.
        let from = |table: Oid| {
            self.facts.foreign_keys.iter().filter(move |k| k.from == table && self.sound(k))
        };
        for mine in from(a) {
            for theirs in
                from(b).filter(|k| k.to == mine.to && k.columns.len() == mine.columns.len())
            {
                let pair = |(x, to, o): &(i16, i16, Oid)| {
                    let other = theirs.columns.iter().find(|c| c.1 == *to)?;
                    equal(*x, other.0).then_some((*x, other.0, *o))
                };
                if let Some(columns) = mine.columns.iter().map(pair).collect::<Option<Pairs>>() {
                    found.push((2, columns));
                }
            }
        }
        found.sort();
        found
    }

    /// Why an occurrence is not tied.
    fn untied(&self, occurrence: usize, ties: &[Vec<Tie>]) -> Error {
        let table = self.occurrence_name(occurrence);
        let compared = self.equalities[occurrence].iter().find_map(|e| {
            let (mine, column) = e.place;
            let what = match e.sources.first()? {
                Source::Place((other, theirs)) if !ties[*other].is_empty() => format!(
                    "{}.{}",
                    self.occurrence_name(*other),
                    self.column(self.occurrences[*other].table, *theirs)
                ),
                Source::Place(_) => return None,
                Source::Constant { .. } => "a constant".into(),
            };
            Some((self.column(self.occurrences[mine].table, column), what))
        });
        Error::Untied { table, compared }
    }

    /// The relation and column that an expression is, looked up through joins.
    pub fn own_column(&self, scope: usize, expr: &Expr) -> Option<(usize, i16)> {
        let Expr::Column { up: 0, relation, number } = expr else {
            return None;
        };
        match &self.scopes[scope].query.relations[*relation] {
            Relation::Join(columns) => {
                self.own_column(scope, columns.get(usize::try_from(*number - 1).ok()?)?)
            }
            _ => Some((*relation, *number)),
        }
    }

    fn table(&self, oid: Oid) -> String {
        self.facts.tables.get(&oid).cloned().unwrap_or_default()
    }

    fn column(&self, table: Oid, number: i16) -> String {
        let name = self.facts.columns.get(&(table, number));
        name.cloned().unwrap_or_default()
    }

    /// An occurrence's table, with its alias where it has another name in the view.
    pub fn occurrence_name(&self, occurrence: usize) -> String {
        let o = &self.occurrences[occurrence];
        let table = self.table(o.table);
        let own = table.rsplit('.').next().unwrap_or_default();
        if o.alias.is_empty() || own == o.alias { table } else { format!("{table} AS {}", o.alias) }
    }
}

fn has_full_join(node: &Node) -> bool {
    match node {
        Node::Relation(_) => false,
        Node::Join { kind, sides, .. } => {
            *kind == JoinKind::Full || sides.iter().any(has_full_join)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query_tree::{Group, Limit, Operator, With};

    // profile (1 id, 2 key, 3 tenant), member (1 id, 2 profile, 3 plan, 4 tenant), plan (1 id, 2 name).
    const PROFILE: Oid = 1;
    const MEMBER: Oid = 2;
    const PLAN: Oid = 3;
    const EQUAL: Oid = 96;
    const LESS: Oid = 97;
    const FAMILY: Oid = 1976;

    fn facts() -> Facts {
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
            families: [PROFILE, MEMBER, PLAN]
                .into_iter()
                .flat_map(|table| (1..=4).map(move |column| ((table, column), vec![FAMILY])))
                .collect(),
            ..Facts::default()
        }
    }

    fn column(relation: usize, number: i16) -> Expr {
        outer(0, relation, number)
    }

    fn outer(up: usize, relation: usize, number: i16) -> Expr {
        Expr::Column { up, relation, number }
    }

    fn compare(oid: Oid, left: Expr, right: Expr) -> Expr {
        Expr::Operator(Box::new(Operator { oid, collation: 0, left, right: vec![right] }))
    }

    fn equal(left: Expr, right: Expr) -> Expr {
        compare(EQUAL, left, right)
    }

    fn constant(text: &str) -> Expr {
        Expr::Constant { r#type: 25, text: Some(text.into()) }
    }

    fn select(tables: &[Oid], from: Vec<Node>, filter: Option<Expr>, targets: Vec<Expr>) -> Query {
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

    fn groups(references: &[u32]) -> Vec<Group> {
        let group = |reference: &u32| Group { reference: *reference, by: (EQUAL, 0) };
        references.iter().map(group).collect()
    }

    fn join(kind: JoinKind, left: Node, right: Node, on: Expr) -> Node {
        Node::Join { kind, sides: Box::new([left, right]), on: Some(on) }
    }

    /// The profile and a subquery in its SELECT list.
    fn showing(query: Query) -> Query {
        let shown = Expr::Query { query: Box::new(query), value: true, any: None, beside: vec![] };
        let targets = vec![column(0, 2), shown];
        select(&[PROFILE], vec![Node::Relation(0)], None, targets)
    }

    fn count(tables: &[Oid], filter: Expr) -> Query {
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

    fn proven(view: &Query) -> Result<Proof, Error> {
        proven_by(view, &facts())
    }

    fn proven_by(view: &Query, facts: &Facts) -> Result<Proof, Error> {
        prove(view, PROFILE, |_, column| column == 2, facts, &|| ())
    }

    fn refused(view: &Query) -> String {
        match proven(view) {
            Ok(proof) => format!("accepted: {:?}", proof.ties),
            Err(Error::Untied { .. }) => "untied".into(),
            Err(Error::ManyRows(_)) => "many rows".into(),
            Err(Error::KeyDoesNotPass(_)) => "the key does not pass".into(),
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn a_member_and_what_it_refers_to_are_tied_step_by_step() {
        let conditions =
            vec![equal(column(0, 2), outer(1, 0, 1)), equal(column(1, 1), column(0, 3))];
        let view = showing(count(&[MEMBER, PLAN], Expr::And(conditions)));
        let Ok(proof) = proven(&view) else { panic!("refused: {}", refused(&view)) };
        let member = Tie::To { other: 0, columns: vec![(2, 1, EQUAL)], child: true };
        let plan = Tie::To { other: 1, columns: vec![(1, 3, EQUAL)], child: false };
        assert_eq!(proof.ties, [vec![Tie::Profile], vec![member], vec![plan]]);
        assert_eq!(proof.occurrences[1].columns, BTreeSet::from([2, 3]));
    }

    #[test]
    fn what_need_not_hold_ties_nothing() {
        let tied = || equal(column(0, 2), outer(1, 0, 1));
        // Under OR or NOT, by another operator, by columns that are no foreign key, not at all.
        for condition in [
            Expr::Other(vec![tied(), constant("t")]),
            compare(LESS, column(0, 2), outer(1, 0, 1)),
            equal(column(0, 1), outer(1, 0, 1)),
            equal(column(0, 4), constant("1")),
            constant("t"),
        ] {
            assert_eq!(refused(&showing(count(&[MEMBER], condition))), "untied");
        }
    }

    #[test]
    fn an_outer_join_ties_only_the_side_that_may_be_missing() {
        let on = || equal(column(1, 2), column(0, 1));
        let view = |kind| {
            let from = join(kind, Node::Relation(0), Node::Relation(1), on());
            Query {
                aggregates: true,
                group_by: groups(&[1]),
                ..select(&[PROFILE, MEMBER], vec![from], None, vec![column(0, 2)])
            }
        };
        assert!(proven(&view(JoinKind::Inner)).is_ok());
        assert!(proven(&view(JoinKind::Left)).is_ok());
        assert_eq!(refused(&view(JoinKind::Right)), "untied");
        assert_eq!(refused(&view(JoinKind::Full)), "Unsupported(\"FULL JOIN\")");
    }

    #[test]
    fn a_condition_does_not_pass_a_limit() {
        let inner = |limit| Query {
            limit,
            ..select(&[MEMBER], vec![Node::Relation(0)], None, vec![column(0, 2)])
        };
        let view = |limit| {
            let mut counted = count(&[], equal(column(0, 1), outer(1, 0, 1)));
            counted.relations = vec![Relation::Subquery(Box::new(inner(limit)))];
            counted.from = vec![Node::Relation(0)];
            showing(counted)
        };
        assert!(proven(&view(Limit::None)).is_ok());
        assert_eq!(refused(&view(Limit::One)), "untied");
    }

    #[test]
    fn the_key_passes_only_what_keeps_profiles_apart() {
        let view =
            || select(&[PROFILE], vec![Node::Relation(0)], None, vec![column(0, 2), column(0, 3)]);
        assert!(proven(&view()).is_ok());
        let limited = Query { limit: Limit::Some, ..view() };
        assert_eq!(refused(&limited), "the key does not pass");
        for (partition, result) in [(1, true), (2, false)] {
            let windowed = Query { windows: vec![groups(&[partition])], ..view() };
            assert_eq!(proven(&windowed).is_ok(), result);
            let distinct = Query { distinct: groups(&[partition]), distinct_on: true, ..view() };
            assert_eq!(proven(&distinct).is_ok(), result);
        }
    }

    /// Another equality of the same columns' type, finer or coarser than its own; and a collation that
    /// takes for equal what differs.
    const OTHER: Oid = 98;
    const BLURRED: Oid = 100;

    fn with_others() -> Facts {
        let mut facts = facts();
        facts.equality.insert(OTHER, vec![FAMILY + 1]);
        facts.nondeterministic.insert(BLURRED);
        facts
    }

    #[test]
    fn a_foreign_key_by_another_equality_ties_nothing() {
        let by_member = count(&[MEMBER], equal(column(0, 2), outer(1, 0, 1)));
        let siblings = count(&[MEMBER, MEMBER], {
            let of_profile = equal(column(0, 2), outer(1, 0, 1));
            Expr::And(vec![of_profile, equal(column(1, 3), column(0, 3))])
        });
        for (view, key) in [(showing(by_member), 0), (showing(siblings), 1)] {
            let mut facts = with_others();
            assert!(proven_by(&view, &facts).is_ok());
            facts.foreign_keys[key].columns[0].2 = OTHER;
            assert!(proven_by(&view, &facts).is_err());
        }
    }

    type Shape = fn(Query, By) -> Query;

    #[test]
    fn a_condition_passes_only_what_merges_by_the_same_equality() {
        let view = |by, shape: Shape| {
            let inner = select(&[MEMBER], vec![Node::Relation(0)], None, vec![column(0, 2)]);
            let mut counted = count(&[], equal(column(0, 1), outer(1, 0, 1)));
            counted.relations = vec![Relation::Subquery(Box::new(shape(inner, by)))];
            counted.from = vec![Node::Relation(0)];
            showing(counted)
        };
        let shapes: [Shape; 4] = [
            |q, by| Query { group_by: vec![Group { reference: 1, by }], ..q },
            |q, by| Query { distinct: vec![Group { reference: 1, by }], ..q },
            |q, by| Query { windows: vec![vec![Group { reference: 1, by }]], ..q },
            |q, by| Query {
                relations: vec![Relation::Subquery(Box::new(q.clone()))],
                from: vec![],
                arms: vec![0],
                union_by: vec![(1, by)],
                ..q
            },
        ];
        for shape in shapes {
            let mut facts = with_others();
            facts.collations = HashMap::from([((MEMBER, 2), 950), ((PROFILE, 1), 950)]);
            let proven = |by| proven_by(&view(by, shape), &facts).map(|p| p.ties);
            assert!(proven((EQUAL, 0)).is_ok(), "{:?}", proven((EQUAL, 0)));
            assert!(proven((OTHER, 0)).is_err());
            assert!(proven((EQUAL, BLURRED)).is_err());
        }
    }

    #[test]
    fn a_unique_index_of_another_collation_is_none_behind_a_subquery() {
        let mut facts = with_others();
        let under = |collation| Unique { table: MEMBER, columns: vec![(2, FAMILY, collation)] };
        let inner =
            select(&[MEMBER], vec![Node::Relation(0)], None, vec![column(0, 2), column(0, 3)]);
        let on = Expr::Operator(Box::new(Operator {
            oid: EQUAL,
            collation: BLURRED,
            left: column(1, 1),
            right: vec![column(0, 1)],
        }));
        let mut view = select(
            &[PROFILE],
            vec![join(JoinKind::Left, Node::Relation(0), Node::Relation(1), on)],
            None,
            vec![column(0, 2), column(1, 2)],
        );
        view.relations.push(Relation::Subquery(Box::new(inner)));
        facts.collations.insert((MEMBER, 2), BLURRED);
        facts.collations.insert((PROFILE, 1), BLURRED);
        facts.unique.push(under(0));
        assert!(proven_by(&view, &facts).is_err());
        facts.unique.push(under(BLURRED));
        assert!(proven_by(&view, &facts).is_ok());
    }

    #[test]
    fn a_grouped_query_shows_other_columns_of_a_row_only_where_that_is_one() {
        // PostgreSQL lets plan.name through since plan.id is grouped by; under a collation where it is not unique.
        let view = |by| {
            let inner = Query {
                group_by: vec![Group { reference: 2, by }],
                ..select(&[MEMBER], vec![Node::Relation(0)], None, vec![column(0, 2), column(0, 1)])
            };
            let mut counted = count(&[], equal(column(0, 1), outer(1, 0, 1)));
            counted.relations = vec![Relation::Subquery(Box::new(inner))];
            counted.from = vec![Node::Relation(0)];
            showing(counted)
        };
        let mut facts = with_others();
        facts.unique.push(Unique { table: MEMBER, columns: vec![(1, FAMILY, 0)] });
        assert!(proven_by(&view((EQUAL, 0)), &facts).is_ok());
        assert!(proven_by(&view((EQUAL, BLURRED)), &facts).is_err());
    }

    #[test]
    fn rows_tie_in_an_order_that_no_unique_column_ends() {
        let view = |order_by: &[u32]| {
            let first = Query {
                limit: Limit::One,
                order_by: order_by.to_vec(),
                ..select(
                    &[MEMBER],
                    vec![Node::Relation(0)],
                    Some(equal(column(0, 2), outer(1, 0, 1))),
                    vec![column(0, 3), column(0, 1), column(0, 4)],
                )
            };
            showing(first)
        };
        let mut facts = facts();
        facts.unique.push(Unique { table: MEMBER, columns: vec![(2, FAMILY, 0), (1, FAMILY, 0)] });
        let tied = |order_by: &[u32]| {
            let proof = proven_by(&view(order_by), &facts);
            proof.is_ok_and(|p| !p.tied.is_empty())
        };
        assert!(tied(&[1]));
        assert!(!tied(&[1, 2]));
        assert!(!tied(&[1, 2, 3]));
    }

    #[test]
    fn one_row_needs_a_unique_index_or_a_group() {
        let on = equal(column(1, 2), column(0, 1));
        let from = || join(JoinKind::Left, Node::Relation(0), Node::Relation(1), on.clone());
        let view =
            || select(&[PROFILE, MEMBER], vec![from()], None, vec![column(0, 2), column(1, 3)]);
        assert_eq!(refused(&view()), "many rows");
        let grouped =
            |group_by: &[u32]| Query { aggregates: true, group_by: groups(group_by), ..view() };
        assert!(proven(&grouped(&[1])).is_ok());
        assert_eq!(refused(&grouped(&[1, 2])), "many rows");
        let mut facts = facts();
        facts.unique.push(Unique { table: MEMBER, columns: vec![(2, FAMILY, 0)] });
        assert!(proven_by(&view(), &facts).is_ok());
    }

    #[test]
    fn a_constant_needs_a_unique_column() {
        let view = |number| showing(count(&[PLAN], equal(column(0, number), constant("free"))));
        let free = Tie::Constant { column: 1, value: "free".into(), r#type: 25 };
        assert!(proven(&view(1)).is_ok_and(|p| p.ties[1] == [free]));
        assert_eq!(refused(&view(2)), "untied");
    }

    #[test]
    fn a_foreign_key_of_two_columns_is_whole_or_nothing() {
        let mut facts = facts();
        facts.foreign_keys[0].columns.push((4, 3, EQUAL));
        let half = || equal(column(0, 2), outer(1, 0, 1));
        let other = || equal(outer(1, 0, 3), column(0, 4));
        let both = showing(count(&[MEMBER], Expr::And(vec![half(), other()])));
        assert!(proven_by(&both, &facts).is_ok());
        let one = showing(count(&[MEMBER], half()));
        assert!(proven_by(&one, &facts).is_err());
    }

    /// What is below a view of `levels` levels, of which each doubles what is below it.
    fn doubled(levels: usize, innermost: Query, level: impl Fn(Query) -> Query) -> Query {
        (0..levels).fold(innermost, |below, _| level(below))
    }

    fn subqueries(queries: Vec<Query>, targets: Vec<Expr>) -> Query {
        let from = (0..queries.len()).map(Node::Relation).collect();
        let relations = queries.into_iter().map(|q| Relation::Subquery(Box::new(q)));
        Query { relations: relations.collect(), ..select(&[], from, None, targets) }
    }

    fn too_complex(view: &Query) -> bool {
        matches!(proven(view), Err(Error::Unsupported(what)) if bounds::ALL.contains(&what))
    }

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
    fn one_row_is_looked_for_once_in_each_subquery() {
        let pair = |below: Query| {
            let one = select(&[], vec![], None, vec![constant("1")]);
            subqueries(vec![below, one], vec![column(0, 1), column(0, 2)])
        };
        // Not one row at the bottom, so that each level looks again once the other subquery is known to be.
        let many = select(
            &[PROFILE, MEMBER],
            vec![Node::Relation(0), Node::Relation(1)],
            Some(equal(column(1, 2), column(0, 1))),
            vec![column(0, 2), column(1, 3)],
        );
        assert_eq!(refused(&doubled(40, many, pair)), "many rows");
        let one =
            select(&[PROFILE], vec![Node::Relation(0)], None, vec![column(0, 2), column(0, 3)]);
        assert!(proven(&doubled(40, one, pair)).is_ok());
    }

    #[test]
    fn what_a_value_may_be_is_found_once_for_each_column() {
        let either = |below: Query| {
            let twice = Expr::Either { results: vec![column(0, 2), column(0, 2)], beside: vec![] };
            subqueries(vec![below], vec![column(0, 1), twice])
        };
        let one =
            select(&[PROFILE], vec![Node::Relation(0)], None, vec![column(0, 2), column(0, 1)]);
        let mut view = doubled(40, one, either);
        view.targets.push(Target {
            expr: Expr::Query {
                query: Box::new(count(&[MEMBER], equal(column(0, 2), outer(1, 0, 2)))),
                value: true,
                any: None,
                beside: vec![],
            },
            reference: 0,
            shown: true,
        });
        assert!(proven(&view).is_ok(), "{}", refused(&view));
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
