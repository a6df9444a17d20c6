//! Conditions under OR: rows of a table that each arm leaves out are left out by all of them.
//!
//! Pure. Invariant: a range-table entry is tied by an OR only where every arm has an equality that is not true of
//! its other rows; the rows that matter are then those of all arms together.

use crate::proof::{Equality, Prover, Tie};
use crate::query_tree::Expr;
use std::collections::BTreeMap;

/// Of each arm of an OR, the equalities that leave out rows of one range-table entry; an arm may have none.
pub type Alternatives = Vec<Vec<Equality>>;

impl Prover<'_> {
    /// What a condition that must hold says where it is an OR.
    pub(super) fn find_alternatives(&mut self, scope: usize, expr: &Expr, over: &[usize]) {
        let Expr::Or(arms) = expr else {
            return;
        };
        let mut of_all: BTreeMap<usize, Alternatives> = BTreeMap::new();
        for (n, arm) in arms.iter().enumerate() {
            for conjunct in arm.conjuncts() {
                for equality in self.equalities_of(scope, conjunct, over) {
                    let arms = of_all.entry(equality.place.0).or_default();
                    arms.resize(n + 1, vec![]);
                    arms[n].push(equality);
                    if self.spend(arms.len()) {
                        return;
                    }
                }
            }
        }
        for (rte, alternatives) in of_all {
            if alternatives.len() == arms.len() {
                self.alternatives[rte].push(alternatives);
            }
        }
    }

    /// How a range-table entry is tied by an OR, all of whose arms tie it, or (`constants`) name a constant; and
    /// whether by a condition outside of a query that groups its rows.
    pub(super) fn by_alternatives(
        &self,
        rte: usize,
        ties: &[Vec<Tie>],
        constants: bool,
    ) -> Option<(Vec<Tie>, bool)> {
        let of_arm = |arm: &Vec<Equality>| {
            arm.iter().find_map(|e| Some((self.by_equality(e, ties, constants)?, e.outside)))
        };
        self.alternatives[rte].iter().find_map(|arms| {
            let arms: Option<Vec<_>> = arms.iter().map(of_arm).collect();
            let (ties, outside): (Vec<_>, Vec<_>) = arms?.into_iter().unzip();
            let mut found: Vec<Tie> = vec![];
            for tie in ties.into_iter().flatten() {
                if !found.contains(&tie) {
                    found.push(tie);
                }
            }
            Some((found, outside.contains(&true)))
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::proof::Tie;
    use crate::proof::sample::*;
    use crate::query_tree::Expr;

    fn by_profile() -> Expr {
        equal(column(0, 2), outer(1, 0, 1))
    }

    #[test]
    fn an_or_ties_where_each_arm_does() {
        // The member's plan, by a foreign key of the profile's own.
        let mut facts = facts();
        facts.foreign_keys.push(crate::proof::ForeignKey {
            from: PROFILE,
            to: PLAN,
            columns: vec![(3, 1, EQUAL)],
        });
        let by_plan = || equal(column(0, 3), outer(1, 0, 3));
        let more = || Expr::And(vec![by_plan(), column(0, 4)]);
        let view = |arms| showing(count(&[MEMBER], Expr::Or(arms)));
        let Ok(proof) = proven_by(&view(vec![by_profile(), more()]), &facts) else {
            panic!("refused")
        };
        let to = |columns, one_profile| Tie::To { other: 0, columns, one_profile };
        let both = vec![to(vec![(2, 1, EQUAL)], true), to(vec![(3, 3, EQUAL)], false)];
        assert_eq!(proof.ties[1], both);
        for other in [column(0, 4), equal(column(0, 1), outer(1, 0, 1)), constant("f")] {
            assert!(proven_by(&view(vec![by_profile(), other.clone()]), &facts).is_err());
            assert!(proven_by(&view(vec![other, by_profile()]), &facts).is_err());
        }
        let nested = Expr::And(vec![column(0, 4), Expr::Or(vec![by_profile(), by_plan()])]);
        assert!(proven_by(&view(vec![nested, constant("t")]), &facts).is_err());
    }

    #[test]
    fn arms_that_tie_different_tables_tie_none() {
        let second = equal(column(1, 2), outer(1, 0, 1));
        let view = showing(count(&[MEMBER, MEMBER], Expr::Or(vec![by_profile(), second])));
        assert_eq!(refused(&view), "untied");
    }
}
