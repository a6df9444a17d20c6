//! The proof that a document view has at most one row for each profile.
//!
//! Pure. Invariant: a relation counts as one row only where conditions fix all columns of a unique index
//! of it, by equalities that the index knows, to values that are themselves fixed.

use crate::error::Error;
use crate::proof::outer_joins::OuterJoin;
use crate::proof::{ColumnRef, Prover, Slot, Unique};
use crate::query_tree::{
    Condition, EqualityOp, Expr, Group, Limit, Node, Oid, Query, Relation, Sorted, bounds,
};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// What was found of each subquery in a FROM: one row, or why not.
type Unproven = HashMap<usize, Result<(), Error>>;

impl Prover<'_> {
    /// At most one row of a query, its output columns `given` being fixed.
    pub fn one_row(&self, scope: usize, given: &[i16], profile: ColumnRef) -> Result<(), Error> {
        let query = self.scopes[scope].query;
        if query.limit == Limit::One {
            return Ok(());
        }
        (self.pause)();
        let asked = (scope, given.to_vec());
        if let Some(known) = self.one_rows.borrow().get(&asked) {
            return known.clone();
        }
        let passing = |n: &&i16| self.passes(scope, **n).is_some();
        let held: Vec<i16> = given.iter().filter(passing).copied().collect();
        let found = self.one_row_of(scope, given, &held, profile, true);
        self.one_rows.borrow_mut().insert(asked, found.clone());
        found
    }

    /// The same before any LIMIT: `held` are those of the output columns whose columns below are fixed, too.
    /// `distinct`: after `DISTINCT [ON]`.
    fn one_row_of(
        &self,
        scope: usize,
        given: &[i16],
        held: &[i16],
        profile: ColumnRef,
        distinct: bool,
    ) -> Result<(), Error> {
        let query = self.scopes[scope].query;
        // What it makes of one row comes after any grouping.
        if query.sets {
            return Err(Error::ManyRows("a set-returning function in a SELECT list".into()));
        }
        if query.aggregates && query.group_by.is_empty() {
            return Ok(());
        }
        if !query.arms.is_empty() {
            return Err(Error::ManyRows("a UNION, INTERSECT or EXCEPT".into()));
        }
        let held = held.iter().filter_map(|n| query.target(*n)).map(|t| &t.expr);
        let (fixed, why) = self.fixed_relations(scope, &held.collect::<Vec<_>>(), profile)?;
        let by = |groups: &[Group]| {
            !groups.is_empty()
                && groups.iter().all(|g| {
                    query.targets.iter().enumerate().filter(|(_, t)| t.is(g.reference)).any(
                        |(i, t)| {
                            given.contains(&i16::try_from(i + 1).unwrap_or(0))
                                || self.is_fixed(scope, &t.expr, &fixed)
                        },
                    )
                })
        };
        if by(&query.group_by) || distinct && by(&query.distinct) {
            return Ok(());
        }
        // Where the query groups, what it groups by has several values.
        let grouped = query
            .targets
            .iter()
            .filter(|t| query.group_by.iter().any(|g| t.is(g.reference)))
            .filter(|t| !self.is_fixed(scope, &t.expr, &fixed))
            .find_map(|t| self.own_column(scope, &t.expr).map(|(r, _)| r));
        let open = || query.from.iter().flat_map(Node::relations).find(|r| !fixed.contains(r));
        match grouped.or_else(open) {
            None => Ok(()),
            Some(many) => Err(Error::ManyRows(match self.scopes[scope].slots[many] {
                Slot::Table(o) => format!("table {}", self.rte_name(o)),
                Slot::Query(_) => match why.get(&many) {
                    Some(Err(Error::ManyRows(what))) => what.clone(),
                    _ => "a subquery".into(),
                },
                Slot::Other => match query.relations[many] {
                    Relation::Function(_) => "a function in FROM".into(),
                    _ => "VALUES".into(),
                },
            })),
        }
    }

    /// The relations of a query's FROM that have one row, each because those before it have; and what was
    /// found of the subqueries among them. `held`: what is fixed whatever the conditions say.
    fn fixed_relations(
        &self,
        scope: usize,
        held: &[&Expr],
        profile: ColumnRef,
    ) -> Result<(BTreeSet<usize>, Unproven), Error> {
        let query = self.scopes[scope].query;
        let relations: Vec<usize> = query.from.iter().flat_map(Node::relations).collect();
        let conditions = query.conditions();
        let outer_joins = self.outer_joins(scope);
        let mut fixed = BTreeSet::new();
        let mut why = Unproven::new();
        loop {
            let before = fixed.len();
            for r in &relations {
                let open = |j: &OuterJoin| j.missing.contains(r) && !j.deciding.is_subset(&fixed);
                if fixed.contains(r) || outer_joins.iter().any(open) {
                    continue;
                }
                if self.spend(1 + conditions.len()) {
                    return Err(Error::Unsupported(bounds::MANY_STEPS));
                }
                let columns = self.fixed_columns(scope, *r, &conditions, held, &fixed);
                let one = match (self.scopes[scope].slots[*r], &query.relations[*r]) {
                    (Slot::Table(o), _) => {
                        self.unique(o, &columns, Some(profile))
                            || self.unique_in_part(scope, *r, &conditions, &columns)
                    }
                    // One row for each row of what it refers to beside it.
                    (Slot::Query(inner), _) if !self.beside(inner, scope).is_subset(&fixed) => {
                        false
                    }
                    (Slot::Query(inner), _) => {
                        let given: Vec<i16> = columns
                            .iter()
                            .filter(|(number, by)| self.fixes(inner, *number, *by))
                            .map(|(number, _)| *number)
                            .collect();
                        let one = self.one_row(inner, &given, profile);
                        why.insert(*r, one.clone());
                        one.is_ok() || self.picks_one(inner, &columns, &given)
                    }
                    (_, Relation::Values(rows)) => rows.len() <= 1,
                    // It is called for each row of what it is given columns of.
                    (_, Relation::Function(f)) => {
                        let numbered =
                            columns.iter().any(|(n, by)| Some(*n) == f.ordinality && by.is_none());
                        (!f.set || numbered)
                            && f.calls.iter().all(|call| self.is_fixed(scope, call, &fixed))
                    }
                    _ => true,
                };
                if one {
                    fixed.insert(*r);
                }
            }
            if fixed.len() == before {
                return Ok((fixed, why));
            }
        }
    }

    /// The relations of `home` that a (LATERAL) query in its FROM refers to.
    pub(super) fn beside(&self, inner: usize, home: usize) -> Rc<BTreeSet<usize>> {
        if let Some(known) = self.besides.borrow().get(&inner) {
            return known.clone();
        }
        let found = Rc::new(self.find_beside(inner, home));
        self.besides.borrow_mut().insert(inner, found.clone());
        found
    }

    fn find_beside(&self, inner: usize, home: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        if self.spend(self.scopes.len()) {
            return found;
        }
        // Each query comes after the one that it stands in.
        let mut inside = BTreeSet::from([inner]);
        for scope in inner..self.scopes.len() {
            let outer = self.scopes[scope].outer;
            if scope != inner && !outer.is_some_and(|o| inside.contains(&o)) {
                continue;
            }
            inside.insert(scope);
            let mut left = self.scopes[scope].query.expressions();
            while let Some(expr) = left.pop() {
                if self.spend(1) {
                    return found;
                }
                if let Expr::Column { up, relation, number } = expr
                    && self.out(scope, *up).is_ok_and(|s| s == home)
                {
                    let own = Expr::Column { up: 0, relation: *relation, number: *number };
                    found.insert(self.own_column(home, &own).map_or(*relation, |(r, _)| r));
                }
                left.extend(expr.parts());
            }
        }
        found
    }

    /// Whether fixing a query's output column by this operator and collation (None: by its type's own)
    /// fixes the value in the tables below.
    fn fixes(&self, scope: usize, number: i16, by: Option<EqualityOp>) -> bool {
        let Some((places, _)) = self.passes(scope, number) else {
            return false;
        };
        let exact = |by| places.iter().all(|p| self.exact(by, &[self.base(*p)]));
        by.is_none_or(exact)
    }

    /// The columns of a relation that conditions hold to values which are fixed: with the operator's
    /// oid and collation.
    fn fixed_columns(
        &self,
        scope: usize,
        relation: usize,
        conditions: &[Condition],
        held: &[&Expr],
        fixed: &BTreeSet<usize>,
    ) -> Vec<(i16, Option<EqualityOp>)> {
        let column = |e: &Expr| self.own_column(scope, e).filter(|(r, _)| *r == relation);
        let mut found = vec![];
        for c in conditions.iter().filter(|c| c.over.contains(&relation)) {
            if let Expr::Operator(o) = c.expr
                && let [right] = &o.right[..]
                && self.facts.equality.contains_key(&o.oid)
            {
                for (mine, other) in [(&o.left, right), (right, &o.left)] {
                    if let Some((_, number)) = column(mine)
                        && self.is_fixed(scope, other, fixed)
                    {
                        found.push((number, Some((o.oid, o.collation))));
                    }
                }
            }
        }
        found
            .extend(self.fixed_by_test(scope, relation, conditions).into_iter().map(|n| (n, None)));
        let held = held.iter().filter_map(|e| column(e));
        found.extend(held.map(|(_, number)| (number, None)));
        found
    }

    /// Whether an expression has one value, the relations in `fixed` having one row.
    pub(super) fn is_fixed(&self, scope: usize, expr: &Expr, fixed: &BTreeSet<usize>) -> bool {
        if self.spend(1) {
            return false;
        }
        match expr {
            Expr::Column { up, .. } if *up > 0 => true,
            Expr::Column { .. } => {
                self.own_column(scope, expr).is_some_and(|(r, _)| fixed.contains(&r))
            }
            Expr::Query { .. } | Expr::Computed(_) => false,
            _ => expr.parts().into_iter().all(|p| self.is_fixed(scope, p, fixed)),
        }
    }

    /// Whether at most one row of a range-table entry has these columns fixed: by an operator and a collation, or
    /// (None) by the column's own equality.
    pub fn unique(
        &self,
        rte: usize,
        columns: &[(i16, Option<EqualityOp>)],
        profile: Option<ColumnRef>,
    ) -> bool {
        let table = self.rtes[rte].table;
        // A key that is given is the profile's own, which attach() has found to be unique.
        let key = |n: &i16| profile == Some((rte, *n));
        if columns.iter().any(|(n, by)| key(n) && by.is_none()) {
            return true;
        }
        self.facts.unique.iter().any(|u| u.table == table && self.holds(u, columns))
    }

    /// Whether all columns of a unique index are among these.
    pub(super) fn holds(&self, u: &Unique, columns: &[(i16, Option<EqualityOp>)]) -> bool {
        let table = u.table;
        let own = |column: i16, family: &Oid| {
            let own = self.facts.families.get(&(table, column));
            own.is_some_and(|own| own.contains(family))
        };
        u.columns.iter().all(|(column, family, collation)| {
            columns.iter().any(|(n, by)| {
                n == column
                    && match by {
                        None => {
                            own(*column, family)
                                && self.tells_apart(self.collation((table, *column)), *collation)
                        }
                        Some((operator, under)) => {
                            let families = self.facts.equality.get(operator);
                            families.is_some_and(|f| f.contains(family))
                                && self.tells_apart(*under, *collation)
                        }
                    }
            })
        })
    }

    /// Where the view takes the first of several rows, by an order in which they may tie: it may take another
    /// one at the next reading. Only a hint for whoever wrote it, so what shows the same either way is left out.
    pub fn tied(&self, profile: ColumnRef) -> BTreeSet<&'static str> {
        let mut found = BTreeSet::new();
        for (number, scope) in self.scopes.iter().enumerate() {
            let query = scope.query;
            if query.limit != Limit::None
                && !query.order_by.is_empty()
                && !self.shows_order(number)
                && !self.ends_order(number, &query.order_by, profile)
            {
                found.insert("LIMIT");
            }
            if query.distinct_on && !query.order_by.is_empty() && !self.shows_order(number) {
                let mut by = query.order_by.clone();
                by.extend(query.distinct.iter().map(|g| g.reference));
                if !self.ends_order(number, &by, profile) {
                    found.insert("DISTINCT ON");
                }
            }
            if query.numbered.iter().any(|by| !self.ends_order(number, by, profile)) {
                found.insert("row_number()");
            }
            if query.sorted.iter().any(|sorted| !self.ends_sorting(number, sorted, profile)) {
                found.insert("aggregate");
            }
        }
        found
    }

    /// Whether rows that are equal in all that an aggregate sorts by are one row, or show the same. By what a subquery has
    /// computed, such as a row's number, they may well be.
    fn ends_sorting(&self, scope: usize, sorted: &Sorted, profile: ColumnRef) -> bool {
        let query = self.scopes[scope].query;
        let groups =
            query.targets.iter().filter(|t| query.group_by.iter().any(|g| t.is(g.reference)));
        let held: Vec<&Expr> = groups.map(|t| &t.expr).chain(&sorted.by).collect();
        let computed = |e: &Expr| match self.own_column(scope, e) {
            Some((r, number)) => match self.scopes[scope].slots[r] {
                Slot::Query(inner) => self.output(inner, number).is_none(),
                _ => false,
            },
            None => false,
        };
        if sorted.by.iter().any(computed) {
            return true;
        }
        let Ok((fixed, _)) = self.fixed_relations(scope, &held, profile) else {
            return true;
        };
        let columns: Vec<_> = held.iter().filter_map(|e| self.own_column(scope, e)).collect();
        let same = |e: &Expr| {
            let own = self.own_column(scope, e);
            own.is_none_or(|own| fixed.contains(&own.0) || columns.contains(&own))
        };
        query.from.iter().flat_map(Node::relations).all(|r| fixed.contains(&r))
            || !sorted.more && sorted.shown.iter().all(same)
    }

    /// Whether rows that are equal in all that an order goes by are one row.
    fn ends_order(&self, scope: usize, references: &[u32], profile: ColumnRef) -> bool {
        let of = |query: &Query| -> Vec<i16> {
            (1..)
                .zip(&query.targets)
                .filter(|(_, t)| references.iter().any(|r| t.is(*r)))
                .map(|(n, _)| n)
                .collect()
        };
        let query = self.scopes[scope].query;
        let given = of(query);
        self.one_row_of(scope, &given, &given, profile, !query.distinct_on).is_ok()
    }

    /// Whether a query shows nothing but what it is ordered by, and what is the same in all of its rows.
    fn shows_order(&self, scope: usize) -> bool {
        let query = self.scopes[scope].query;
        let ordered = |reference| query.order_by.contains(&reference);
        let none = BTreeSet::new();
        query.targets.iter().filter(|t| t.shown).all(|t| {
            t.reference != 0 && ordered(t.reference) || self.is_fixed(scope, &t.expr, &none)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::proof::Unique;
    use crate::proof::sample::*;
    use crate::query_tree::{Expr, Function, JoinKind, Limit, Node, Operator, Query, Relation};

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
    fn a_function_has_one_row_for_each_of_what_it_is_given() {
        let of = |set, given: Expr| {
            let function =
                Function { calls: vec![Expr::Other(vec![given])], set, ordinality: None };
            let mut view = select(
                &[PROFILE, MEMBER],
                (0..3).map(Node::Relation).collect(),
                Some(equal(column(1, 2), column(0, 1))),
                vec![column(0, 2), column(2, 1)],
            );
            view.relations.push(Relation::Function(function));
            view
        };
        let mut one_member = facts();
        one_member.unique.push(Unique { table: MEMBER, columns: vec![(2, FAMILY, 0)] });
        let proof = proven_by(&of(false, column(1, 4)), &one_member);
        assert!(proof.is_ok_and(|p| p.rtes[1].columns.contains(&4)), "what it is given is read");
        assert!(proven_by(&of(true, column(1, 4)), &one_member).is_err());
        let grouped = |given| Query { group_by: groups(&[1, 2]), ..of(false, given) };
        assert_eq!(refused(&grouped(column(1, 4))), "many rows");
        assert!(proven(&grouped(column(0, 4))).is_ok());
        let sets = Query { sets: true, ..of(false, column(0, 4)) };
        assert!(proven_by(&sets, &one_member).is_err());
        assert!(proven_by(&Query { limit: Limit::One, ..showing(sets) }, &one_member).is_err());
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
}
