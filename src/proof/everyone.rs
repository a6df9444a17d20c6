//! Tables that every profile shows: range-table entries that nothing ties, and that nothing seems meant to tie.
//!
//! Pure. Invariant: only what no equality compares with what is tied is taken for shown to everyone, and no table of
//! which each row belongs to a profile. Everything else that is not tied is taken for a mistake, and refused.

use crate::proof::{Entries, Prover, Slot, Tie};
use crate::query_tree::{Condition, Expr, Relation};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Range-table entries that an expression draws from, and whether by a relation that the condition, of which it is
/// part, leaves out rows of.
type Drawn = BTreeSet<(usize, bool)>;

impl Prover<'_> {
    /// The range-table entries that are not tied and may be shown to everyone: each row of theirs matters to each
    /// profile then, so it is right whatever else the view says; but every change concerns everybody.
    pub(super) fn shown_to_everyone(&self, ties: &[Vec<Tie>]) -> Vec<usize> {
        let mut open: Entries = (0..ties.len())
            .filter(|r| {
                ties[*r].is_empty() && !self.facts.never_whole.contains(&self.rtes[*r].table)
            })
            .collect();
        for scope in 0..self.scopes.len() {
            if open.is_empty() {
                break;
            }
            self.leave_out_compared(scope, ties, &mut open);
        }
        open.into_iter().collect()
    }

    /// Takes out of `open` what an equality of a query compares with what is tied: a join that lacks its foreign key.
    /// An equality that finds the other's rows by it, as in `f LEFT JOIN u ON u.flag_id = f.id`, is none.
    fn leave_out_compared(&self, scope: usize, ties: &[Vec<Tie>], open: &mut Entries) {
        let query = self.scopes[scope].query;
        let mut compare = |one: &Drawn, other: &Drawn| {
            let tied = |d: &&(usize, bool)| !ties[d.0].is_empty();
            for (rte, over) in one {
                if other.iter().filter(tied).any(|(_, theirs)| *over || !*theirs) {
                    open.remove(rte);
                }
            }
        };
        for Condition { expr, over } in query.conditions() {
            for part in self.within(expr) {
                let (left, right) = match part {
                    Expr::Operator(o) if self.facts.equality.contains_key(&o.oid) => {
                        let right = o.right.iter().map(|e| self.drawn(scope, e, Some(&over)));
                        (self.drawn(scope, &o.left, Some(&over)), right.flatten().collect())
                    }
                    // Under NOT or OR it leaves out nothing by itself: it is a value there.
                    Expr::Query { any, .. } if !any.is_empty() && std::ptr::eq(part, expr) => {
                        let right = self.drawn(scope, part, None);
                        let left = any.iter().map(|a| self.drawn(scope, &a.left, Some(&over)));
                        (left.flatten().collect(), right)
                    }
                    _ => continue,
                };
                compare(&left, &right);
                compare(&right, &left);
            }
        }
        // As a value, `x IN (SELECT …)` asks every row of the subquery.
        for part in query.expressions().into_iter().flat_map(|e| self.within(e)) {
            if let Expr::Query { any, .. } = part {
                for one in any {
                    compare(&self.drawn(scope, part, None), &self.drawn(scope, &one.left, None));
                }
            }
        }
    }

    /// An expression and its parts, but for nested queries.
    pub(super) fn within<'e>(&self, expr: &'e Expr) -> Vec<&'e Expr> {
        let mut all = vec![expr];
        let mut next = 0;
        while let Some(expr) = all.get(next).copied() {
            if self.spend(1) {
                break;
            }
            all.extend(expr.parts());
            next += 1;
        }
        all
    }

    /// What an expression draws from; a nested query counts with what it selects.
    fn drawn(&self, scope: usize, expr: &Expr, over: Option<&[usize]>) -> Drawn {
        let mut found = Drawn::new();
        self.draw(scope, expr, over, &mut found);
        found
    }

    fn draw(&self, scope: usize, expr: &Expr, over: Option<&[usize]>, found: &mut Drawn) {
        if self.spend(1) {
            return;
        }
        match expr {
            Expr::Column { up, relation, number } => {
                let Ok(home) = self.out(scope, *up) else { return };
                let over = over.filter(|_| *up == 0);
                let left_out = over.is_some_and(|o| o.contains(relation));
                match (
                    self.scopes[home].slots[*relation],
                    &self.scopes[home].query.relations[*relation],
                ) {
                    (Slot::Table(rte), _) => {
                        found.insert((rte, left_out));
                    }
                    (Slot::Query(inner), _) => {
                        found.extend(self.selected(inner, *number).iter().map(|r| (*r, left_out)));
                    }
                    (_, Relation::Join(columns)) => {
                        let one = usize::try_from(*number - 1).ok().and_then(|n| columns.get(n));
                        let all = one.map_or(&columns[..], std::slice::from_ref);
                        all.iter().for_each(|c| self.draw(home, c, over, found));
                    }
                    (_, Relation::Values(rows)) => {
                        rows.iter().flatten().for_each(|e| self.draw(home, e, None, found));
                    }
                    (_, Relation::Function(f)) => {
                        f.calls.iter().for_each(|e| self.draw(home, e, None, found));
                    }
                    _ => {}
                }
            }
            Expr::Query { query, value, any, .. } => {
                let Some(inner) = self.nested.get(&(scope, std::ptr::from_ref(&**query))) else {
                    return;
                };
                if *value || !any.is_empty() {
                    found.extend(self.selected(*inner, 0).iter().map(|r| (*r, false)));
                } else {
                    found.extend(self.asked(*inner));
                }
            }
            _ => expr.parts().into_iter().for_each(|p| self.draw(scope, p, over, found)),
        }
    }

    /// What a query's output column (0: all of them) draws from.
    fn selected(&self, scope: usize, number: i16) -> Rc<Entries> {
        if let Some(known) = self.drawn.borrow().get(&(scope, number)) {
            return known.clone();
        }
        let query = self.scopes[scope].query;
        let mut found = Entries::new();
        for slot in query.arms.iter().map(|arm| self.scopes[scope].slots[*arm]) {
            if let Slot::Query(inner) = slot {
                found.extend(self.selected(inner, number).iter());
            }
        }
        let one = query.target(number).map(std::slice::from_ref);
        for target in one.unwrap_or(&query.targets) {
            found.extend(self.drawn(scope, &target.expr, None).iter().map(|(r, _)| *r));
        }
        let found = Rc::new(found);
        self.drawn.borrow_mut().insert((scope, number), found.clone());
        found
    }

    /// What EXISTS asks: what stands in a query's FROM.
    fn asked(&self, scope: usize) -> Drawn {
        let tables = self.scopes[scope].slots.iter().filter_map(|slot| match slot {
            Slot::Table(rte) => Some((*rte, false)),
            _ => None,
        });
        tables.collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::proof::sample::*;
    use crate::proof::{ForeignKey, Tie};
    use crate::query_tree::{Any, Expr, JoinKind, Node, Oid, Query};
    use std::collections::BTreeSet;

    /// A table that nothing leads to the profile from: 1 id, 2 plan, a foreign key.
    const FEATURE: Oid = 4;

    fn with_features() -> crate::proof::Facts {
        let mut facts = facts();
        facts.families.extend([1, 2].map(|c| ((FEATURE, c), vec![FAMILY])));
        let columns = vec![(2, 1, EQUAL)];
        facts.foreign_keys.push(ForeignKey { from: FEATURE, to: PLAN, columns });
        facts
    }

    fn shown(view: &Query) -> Option<Vec<Vec<Tie>>> {
        proven_by(view, &with_features()).ok().map(|p| p.ties)
    }

    fn always() -> Expr {
        Expr::And(vec![])
    }

    #[test]
    fn what_nothing_is_compared_with_is_everyones() {
        let all =
            |n| [vec![Tie::Profile]].into_iter().chain(vec![vec![Tie::Everyone]; n]).collect();
        assert_eq!(shown(&showing(count(&[PLAN], always()))), Some(all(1)));
        let joined = equal(column(0, 2), column(1, 1));
        assert_eq!(shown(&showing(count(&[FEATURE, PLAN], joined))), Some(all(2)));
        let more = compare(LESS, column(0, 1), outer(1, 0, 3));
        assert_eq!(shown(&showing(count(&[PLAN], more))), Some(all(1)));
    }

    #[test]
    fn what_belongs_to_profiles_is_not() {
        for table in [PROFILE, MEMBER] {
            assert_eq!(shown(&showing(count(&[table], always()))), None);
        }
        // Nor by way of what is everyone's.
        let joined = equal(column(0, 3), column(1, 1));
        assert_eq!(shown(&showing(count(&[MEMBER, PLAN], joined))), None);
    }

    #[test]
    fn what_an_equality_compares_with_the_profile_is_not() {
        let by = |filter| shown(&showing(count(&[PLAN], filter)));
        let mistaken = || equal(column(0, 2), outer(1, 0, 3));
        assert_eq!(by(mistaken()), None);
        assert_eq!(by(equal(Expr::Other(vec![column(0, 2)]), outer(1, 0, 3))), None);
        assert_eq!(by(Expr::Other(vec![mistaken(), always()])), None);
        // Nor what leads to the mistaken one.
        let both = Expr::And(vec![mistaken(), equal(column(1, 2), column(0, 1))]);
        assert_eq!(shown(&showing(count(&[PLAN, FEATURE], both))), None);
        // As a value, IN asks all of its rows.
        let inner = select(&[PLAN], vec![Node::Relation(0)], None, vec![column(0, 1)]);
        let any = vec![Any { number: 1, operator: EQUAL, collation: 0, left: column(0, 3) }];
        let among = Expr::Query { query: Box::new(inner), value: false, any, beside: vec![] };
        let view = select(&[PROFILE], vec![Node::Relation(0)], None, vec![column(0, 2), among]);
        assert_eq!(shown(&view), None);
    }

    #[test]
    fn an_outer_side_is_compared_with_what_is_found_by_it_only() {
        let view = |on| {
            let from = join(JoinKind::Left, Node::Relation(0), Node::Relation(1), on);
            let inner = Query {
                aggregates: true,
                ..select(&[PLAN, MEMBER], vec![from], None, vec![column(0, 2)])
            };
            shown(&showing(inner)).map(|ties| ties[1].clone())
        };
        let of_profile = || equal(column(1, 2), outer(1, 0, 1));
        let found_by_it = Expr::And(vec![of_profile(), equal(column(1, 3), column(0, 1))]);
        assert_eq!(view(found_by_it), Some(vec![Tie::Everyone]));
        let meant_for_it = Expr::And(vec![of_profile(), equal(column(0, 2), outer(1, 0, 3))]);
        assert_eq!(view(meant_for_it), None);
    }

    #[test]
    fn what_was_tied_in_part_is_not_taken_for_everyones() {
        let mut facts = with_features();
        facts.never_whole = BTreeSet::from([PLAN]);
        assert!(proven_by(&showing(count(&[PLAN], always())), &facts).is_err());
    }
}
