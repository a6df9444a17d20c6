//! What a condition says of one column alone, and whether that implies the predicate of a partial unique index.
//!
//! Pure. Invariant: a claim follows from conditions only where one of them says the same of the same column, or
//! obviously more: a comparison with fewer of the same constants, or one that is not true of NULL. What is not
//! recognized is no claim, and an index whose predicate has a part that is none proves nothing.

use crate::proof::{Prover, Unique};
use crate::query_tree::{Condition, EqualityOp, Expr, Oid, Test};

/// What is true of a column's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    Is(Test),
    /// It compares so with one of these constants, each a type and a text (none: NULL).
    Compares {
        operator: Oid,
        collation: Oid,
        with: Vec<(Oid, Option<String>)>,
    },
}

/// A unique index that holds for the rows of which all of its claims are true.
#[derive(Clone, Debug)]
pub struct Partial {
    pub unique: Unique,
    pub claims: Vec<(i16, Claim)>,
    /// Its predicate as SQL writes it.
    pub predicate: String,
}

/// What a conjunct says of a column: which relation's, and which.
pub fn claim(expr: &Expr) -> Option<(&Expr, Claim)> {
    match expr {
        Expr::Column { .. } => Some((expr, Claim::Is(Test::True))),
        Expr::Test { is: Test::True, of } => claim(of),
        Expr::Test { is, of } if matches!(**of, Expr::Column { .. }) => Some((of, Claim::Is(*is))),
        Expr::Operator(o) if matches!(o.left, Expr::Column { .. }) => {
            if let (BOOLEAN_EQUAL, [Expr::Constant { text: Some(text), .. }]) =
                (o.oid, &o.right[..])
            {
                let is = if text == "t" { Test::True } else { Test::False };
                return Some((&o.left, Claim::Is(is)));
            }
            let constant = |e: &Expr| match e {
                Expr::Constant { r#type, text } => Some((*r#type, text.clone())),
                _ => None,
            };
            let with = o.right.iter().map(constant).collect::<Option<_>>()?;
            let compares = Claim::Compares { operator: o.oid, collation: o.collation, with };
            Some((&o.left, compares))
        }
        _ => None,
    }
}

/// boolean = boolean.
const BOOLEAN_EQUAL: Oid = 91;

impl Claim {
    /// Whether it says as much as the other, at least.
    fn implies(&self, other: &Claim) -> bool {
        match (self, other) {
            (Claim::Is(Test::True | Test::False), Claim::Is(Test::NotNull)) => true,
            (
                Claim::Compares { operator, collation, with },
                Claim::Compares { operator: o, collation: c, with: among },
            ) => (operator, collation) == (o, c) && with.iter().all(|w| among.contains(w)),
            _ => self == other,
        }
    }
}

impl Prover<'_> {
    /// Whether at most one row of a table in FROM has these columns fixed, by a partial index whose predicate the
    /// conditions that leave out its rows imply.
    pub(super) fn unique_in_part(
        &self,
        scope: usize,
        relation: usize,
        conditions: &[Condition],
        columns: &[(i16, Option<EqualityOp>)],
    ) -> bool {
        let crate::proof::Slot::Table(rte) = self.scopes[scope].slots[relation] else {
            return false;
        };
        let table = self.rtes[rte].table;
        let over = conditions.iter().filter(|c| c.over.contains(&relation));
        let over: Vec<&Condition> = over.collect();
        for (number, partial) in self.facts.partial.iter().enumerate() {
            if partial.unique.table != table || self.spend(over.len() * partial.claims.len()) {
                continue;
            }
            let says = |c: &&Condition, n: i16, wanted: &Claim| {
                self.says(scope, c.expr, (relation, n), wanted)
            };
            let implied =
                partial.claims.iter().all(|(n, wanted)| over.iter().any(|c| says(c, *n, wanted)));
            if implied && self.holds(&partial.unique, columns) {
                self.partial.borrow_mut().insert(number);
                return true;
            }
        }
        false
    }

    /// Whether a condition that is true says this of a column.
    fn says(&self, scope: usize, expr: &Expr, column: (usize, i16), wanted: &Claim) -> bool {
        let is_it = |e: &Expr| self.own_column(scope, e) == Some(column);
        if claim(expr).is_some_and(|(of, says)| is_it(of) && says.implies(wanted)) {
            return true;
        }
        // An equality is not true of NULL.
        let Expr::Operator(o) = expr else {
            return false;
        };
        let strict = self.facts.equality.contains_key(&o.oid);
        let right = matches!(&o.right[..], [right] if is_it(right));
        *wanted == Claim::Is(Test::NotNull) && strict && (is_it(&o.left) || right)
    }

    /// Columns of a relation that conditions hold to one truth value.
    pub(super) fn fixed_by_test(
        &self,
        scope: usize,
        relation: usize,
        conditions: &[Condition],
    ) -> Vec<i16> {
        let over = conditions.iter().filter(|c| c.over.contains(&relation));
        let truth = |c: &Condition| match claim(c.expr) {
            Some((of, Claim::Is(Test::True | Test::False))) => self.own_column(scope, of),
            _ => None,
        };
        over.filter_map(truth).filter(|(r, _)| *r == relation).map(|(_, n)| n).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::sample::*;
    use crate::query_tree::{JoinKind, Node, Operator};

    fn test(is: Test, of: Expr) -> Expr {
        Expr::Test { is, of: Box::new(of) }
    }

    /// Whether each member of a profile that meets the condition is one, by an index for those of whom the claim is true.
    fn is_one(claim: Claim, condition: Expr) -> bool {
        let on = Expr::And(vec![equal(column(1, 2), column(0, 1)), condition]);
        let from = join(JoinKind::Left, Node::Relation(0), Node::Relation(1), on);
        let view = select(&[PROFILE, MEMBER], vec![from], None, vec![column(0, 2), column(1, 3)]);
        let unique = Unique { table: MEMBER, columns: vec![(2, FAMILY, 0)] };
        let mut facts = with_others();
        facts.partial =
            vec![Partial { unique, claims: vec![(4, claim)], predicate: String::new() }];
        let proof = proven_by(&view, &facts);
        if let Ok(proof) = &proof {
            assert_eq!(proof.partial.len(), 1);
        }
        proof.is_ok()
    }

    #[test]
    fn a_flag_is_implied_by_itself_only() {
        let flag = || column(1, 4);
        let main = || Claim::Is(Test::True);
        assert!(is_one(main(), flag()));
        assert!(is_one(main(), test(Test::True, flag())));
        assert!(is_one(main(), Expr::And(vec![constant("t"), flag()])));
        assert!(is_one(Claim::Is(Test::False), test(Test::False, flag())));
        assert!(is_one(Claim::Is(Test::NotNull), flag()));
        for other in [
            test(Test::False, flag()),
            test(Test::NotNull, flag()),
            test(Test::False, test(Test::False, flag())),
            Expr::Or(vec![flag(), constant("t")]),
            Expr::Other(vec![flag()]),
            column(1, 3),
            column(0, 4),
            constant("t"),
        ] {
            assert!(!is_one(main(), other));
        }
    }

    #[test]
    fn a_comparison_is_implied_by_one_with_fewer_of_its_constants() {
        let compares = |operator, collation, texts: &[&str]| {
            let right = texts.iter().map(|t| constant(t)).collect();
            let left = column(1, 4);
            Expr::Operator(Box::new(Operator { oid: operator, collation, left, right }))
        };
        let active = || match claim(&compares(EQUAL, 0, &["a", "b"])) {
            Some((_, claim)) => claim,
            None => panic!("no claim"),
        };
        assert!(is_one(active(), compares(EQUAL, 0, &["a", "b"])));
        assert!(is_one(active(), compares(EQUAL, 0, &["b"])));
        assert!(!is_one(active(), compares(EQUAL, 0, &["a", "c"])));
        assert!(!is_one(active(), compares(EQUAL, BLURRED, &["a"])));
        assert!(!is_one(active(), compares(OTHER, 0, &["a"])));
        assert!(!is_one(active(), equal(column(1, 4), column(0, 3))));
        // An equality is not true of NULL, whatever it compares with.
        let there = || Claim::Is(Test::NotNull);
        assert!(is_one(there(), equal(column(0, 3), column(1, 4))));
        assert!(!is_one(there(), compare(LESS, column(0, 3), column(1, 4))));
        assert!(!is_one(there(), equal(column(0, 3), Expr::Other(vec![column(1, 4)]))));
    }
}
