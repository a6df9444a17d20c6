//! What decides whether an outer join has a row of the side that may be missing, or NULLs in its place.
//!
//! Pure. Invariant: a relation on such a side has one value for a profile only once everything is fixed that its
//! join's condition compares it with: else one row of the other side finds it, and the next one NULLs.

use crate::proof::{Prover, Slot};
use crate::query_tree::{Expr, JoinKind, Node, Relation};
use std::collections::BTreeSet;

/// The relations that may be missing together, and those of the other side that decide it.
pub struct OuterJoin {
    pub missing: Vec<usize>,
    pub deciding: BTreeSet<usize>,
}

impl Prover<'_> {
    /// The outer joins of a query's FROM.
    pub(super) fn outer_joins(&self, scope: usize) -> Vec<OuterJoin> {
        let mut found = vec![];
        let mut left: Vec<&Node> = self.scopes[scope].query.from.iter().collect();
        while let Some(node) = left.pop() {
            let Node::Join { kind, sides, on } = node else {
                continue;
            };
            left.extend(sides.iter());
            let (missing, kept) = match kind {
                JoinKind::Left => (&sides[1], &sides[0]),
                JoinKind::Right => (&sides[0], &sides[1]),
                JoinKind::Inner | JoinKind::Full => continue,
            };
            let (missing, kept) = (missing.relations(), kept.relations());
            let deciding = self.deciding(scope, &missing, &kept, on.as_ref());
            found.push(OuterJoin { missing, deciding });
        }
        found
    }

    fn deciding(
        &self,
        scope: usize,
        missing: &[usize],
        kept: &[usize],
        on: Option<&Expr>,
    ) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        // A function on the side that may be missing makes rows of what it is given.
        let called = missing.iter().flat_map(|r| match &self.scopes[scope].query.relations[*r] {
            Relation::Function(f) => &f.calls[..],
            _ => &[],
        });
        let mut left: Vec<&Expr> = on.into_iter().chain(called).collect();
        while let Some(expr) = left.pop() {
            if self.spend(1) {
                return found;
            }
            // What a subquery in the condition refers to is not looked for.
            if matches!(expr, Expr::Query { .. }) {
                found.extend(kept);
            }
            if let Expr::Column { up: 0, relation, .. } = expr {
                match self.own_column(scope, expr) {
                    Some((own, _)) => found.insert(own),
                    None => found.insert(*relation),
                };
            }
            left.extend(expr.parts());
        }
        for r in missing {
            if let Slot::Query(inner) = self.scopes[scope].slots[*r] {
                found.extend(self.beside(inner, scope).iter());
            }
        }
        // A column of a join that is several of its tables' (USING) is any of them.
        if found.iter().any(|r| !missing.contains(r) && !kept.contains(r)) {
            found.extend(kept);
        }
        found.into_iter().filter(|r| kept.contains(r)).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::proof::Unique;
    use crate::proof::sample::*;
    use crate::query_tree::{Expr, Function, JoinKind, Node, Query, Relation};

    #[test]
    fn what_a_third_table_decides_is_not_one_row() {
        // The profile, any plan, and its member where the plan's name is one; the member's plan, or 'free'.
        let view = |also: Expr| {
            let on = Expr::And(vec![equal(column(2, 2), column(0, 1)), also]);
            let both = join(JoinKind::Inner, Node::Relation(0), Node::Relation(1), constant("t"));
            let from = join(JoinKind::Left, both, Node::Relation(2), on);
            let plan =
                Expr::Either { results: vec![column(2, 3), constant("free")], beside: vec![] };
            Query {
                filter: Some(equal(column(1, 1), plan)),
                ..select(
                    &[PROFILE, PLAN, MEMBER],
                    vec![from],
                    None,
                    vec![column(0, 2), column(1, 2)],
                )
            }
        };
        let mut facts = facts();
        facts.unique.push(Unique { table: MEMBER, columns: vec![(2, FAMILY, 0)] });
        assert!(proven_by(&view(column(2, 4)), &facts).is_ok());
        assert!(proven_by(&view(equal(column(1, 2), constant("x"))), &facts).is_err());
        let asked = select(&[], vec![], Some(outer(1, 1, 2)), vec![constant("1")]);
        let exists =
            Expr::Query { query: Box::new(asked), value: false, any: vec![], beside: vec![] };
        assert!(proven_by(&view(exists), &facts).is_err());
    }

    #[test]
    fn what_a_function_is_given_decides() {
        // The profile, any plan, and its member where a function of the plan's name (or of nothing) gives the member's.
        let view = |given: Expr| {
            let call = Function { calls: vec![given], set: false, ordinality: None };
            let found = equal(column(2, 4), column(3, 1));
            let missing = join(JoinKind::Inner, Node::Relation(3), Node::Relation(2), found);
            let both = join(JoinKind::Inner, Node::Relation(0), Node::Relation(1), constant("t"));
            let on = equal(column(2, 2), column(0, 1));
            let from = join(JoinKind::Left, both, missing, on);
            let results = vec![column(2, 3), constant("free")];
            let plan = Expr::Either { results, beside: vec![] };
            let mut view = Query {
                filter: Some(equal(column(1, 1), plan)),
                ..select(&[PROFILE, PLAN, MEMBER], vec![from], None, vec![column(0, 2)])
            };
            view.relations.push(Relation::Function(call));
            view
        };
        let mut facts = facts();
        facts.unique.push(Unique { table: MEMBER, columns: vec![(2, FAMILY, 0)] });
        assert!(proven_by(&view(constant("x")), &facts).is_ok());
        assert!(proven_by(&view(Expr::Computed(vec![column(1, 2)])), &facts).is_err());
    }
}
