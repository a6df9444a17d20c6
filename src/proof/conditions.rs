//! What the conditions of a view's queries say: which rows they leave out, and by which values.
//!
//! Pure. Invariant: a condition counts for a table's rows only where every query between the two lets it
//! through: none takes a row that the condition leaves out for the same as one that it keeps.

use crate::proof::{Equality, Prover, Restricted, Slot, Source, Sources};
use crate::query_tree::{Condition, EqualityOp, Expr, Relation, Target};
use std::collections::HashSet;
use std::rc::Rc;

impl Prover<'_> {
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
                    (Slot::Table(rte), _) => {
                        let place = Source::Column((rte, *number));
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
    pub(super) fn output(&self, scope: usize, number: i16) -> Option<Sources> {
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
            Slot::Table(rte) => (number > 0).then(|| (vec![(rte, number)], false)),
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
        let grouped: Vec<(i16, Option<EqualityOp>)> = grouped
            .filter_map(|(t, by)| {
                let (of, number) = self.own_column(scope, &t.expr)?;
                (of == relation).then_some((number, Some(by)))
            })
            .collect();
        match self.scopes[scope].slots[relation] {
            Slot::Table(rte) => self.unique(rte, &grouped, None),
            _ => false,
        }
    }

    /// The equalities among a query's conditions.
    pub(super) fn find_equalities(&mut self, scope: usize) {
        let query = self.scopes[scope].query;
        for Condition { expr, over } in query.conditions() {
            if self.spend(1 + over.len()) {
                return;
            }
            let own = self.equalities_of(scope, expr, &over);
            let inside = self.inside_of(scope, expr);
            own.into_iter().chain(inside).for_each(|equality| self.note(equality));
            self.find_alternatives(scope, expr, &over);
        }
    }

    /// What a condition that must hold says of the rows of this query's relations.
    pub(super) fn equalities_of(&self, scope: usize, expr: &Expr, over: &[usize]) -> Vec<Equality> {
        let mut found = vec![];
        match expr {
            Expr::Operator(o) => {
                let by = (o.oid, o.collation);
                let sources = self.all_sources(scope, &o.right);
                let restricted = self.restricts(scope, &o.left, Some(over));
                let beside = o.right.iter().any(Expr::is_of_this_query);
                self.equate(&mut found, by, restricted, sources, beside);
                if let [right] = &o.right[..] {
                    let sources = self.sources(scope, &o.left);
                    let restricted = self.restricts(scope, right, Some(over));
                    self.equate(&mut found, by, restricted, sources, o.left.is_of_this_query());
                }
            }
            Expr::Query { query: inner, any, .. } => {
                let inner = self.nested.get(&(scope, std::ptr::from_ref(&**inner)));
                for (any, inner) in any.iter().zip(inner.into_iter().cycle()) {
                    let sources = self.output(*inner, any.number);
                    let restricted = self.restricts(scope, &any.left, Some(over));
                    let by = (any.operator, any.collation);
                    self.equate(&mut found, by, restricted, sources, true);
                }
            }
            _ => {}
        }
        found
    }

    /// What a condition that must hold, or each of those under OR, says of the rows of a subquery in it: those
    /// with another value do not make `x IN (SELECT y …)` true.
    pub(super) fn inside_of(&self, scope: usize, expr: &Expr) -> Vec<Equality> {
        let mut found = vec![];
        let mut left = vec![expr];
        while let Some(expr) = left.pop() {
            if self.spend(1) {
                return vec![];
            }
            match expr {
                Expr::And(parts) | Expr::Or(parts) => left.extend(parts),
                Expr::Query { query: inner, any, .. } => {
                    let inner = self.nested.get(&(scope, std::ptr::from_ref(&**inner)));
                    for (any, inner) in any.iter().zip(inner.into_iter().cycle()) {
                        let sources = self.sources(scope, &any.left);
                        let restricted = self.passes(*inner, any.number);
                        let by = (any.operator, any.collation);
                        let beside = any.left.is_of_this_query();
                        self.equate(&mut found, by, restricted, sources, beside);
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// `beside`: the value comes from another relation of the same query.
    fn equate(
        &self,
        found: &mut Vec<Equality>,
        by: EqualityOp,
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
            let outside = grouped && beside;
            found.push(Equality { place, sources: sources.clone(), by, outside });
        }
    }

    fn note(&mut self, equality: Equality) {
        if self.noted.insert(equality.clone()) {
            self.equalities[equality.place.0].push(equality);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proof::Unique;
    use crate::proof::sample::*;
    use crate::query_tree::{
        EqualityOp, Expr, Group, JoinKind, Limit, Node, Query, Relation, Target,
    };
    use std::collections::HashMap;

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

    type Shape = fn(Query, EqualityOp) -> Query;

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
                any: vec![],
                beside: vec![],
            },
            reference: 0,
            shown: true,
        });
        assert!(proven(&view).is_ok(), "{}", refused(&view));
    }
}
