//! Subqueries in FROM of which a condition picks one row: a row_number(), and constant rows by one of their values.
//!
//! Pure. Invariant: a number picks one row only within one partition; a value picks one of the constant rows only
//! where all of them have different ones, by an equality of what prints differently.

use crate::proof::Prover;
use crate::query_tree::{EqualityOp, Expr, Node, Oid, Query, Relation, Target};
use std::collections::BTreeSet;

impl Prover<'_> {
    /// Whether at most one row of a subquery has these output columns fixed. `given`: those of them whose columns
    /// below are fixed, too.
    pub(super) fn picks_one(
        &self,
        inner: usize,
        columns: &[(i16, Option<EqualityOp>)],
        given: &[i16],
    ) -> bool {
        let query = self.scopes[inner].query;
        // Of a numbered row, a function in the SELECT list makes several of that number.
        !query.sets
            && (self.picks_number(inner, query, columns, given)
                || self.picks_constant(query, columns))
    }

    /// By a row_number(), each partition being fixed.
    fn picks_number(
        &self,
        inner: usize,
        query: &Query,
        columns: &[(i16, Option<EqualityOp>)],
        given: &[i16],
    ) -> bool {
        let none = BTreeSet::new();
        let fixed =
            |(n, t): (i16, &Target)| given.contains(&n) || self.is_fixed(inner, &t.expr, &none);
        let partition = |reference: &u32| {
            let mut of = (1..).zip(&query.targets).filter(|(_, t)| t.is(*reference));
            of.any(fixed)
        };
        query.numbers.iter().any(|(number, by)| {
            let is_number = |(n, by): &(i16, Option<EqualityOp>)| {
                n == number && by.is_some_and(|by| DISTINCT.contains(&by.0))
            };
            columns.iter().any(is_number) && by.iter().all(partition)
        })
    }

    /// By a column of VALUES.
    fn picks_constant(&self, query: &Query, columns: &[(i16, Option<EqualityOp>)]) -> bool {
        let [Node::Relation(values)] = query.from[..] else {
            return false;
        };
        let Some(Relation::Values(rows)) = query.relations.get(values) else {
            return false;
        };
        if query.grouped() || !query.windows.is_empty() || !query.arms.is_empty() {
            return false;
        }
        columns.iter().any(|(number, by)| {
            let Some(Expr::Column { up: 0, relation, number }) =
                query.target(*number).map(|t| &t.expr)
            else {
                return false;
            };
            let Some((operator, collation)) = by else {
                return false;
            };
            let n = usize::try_from(*number - 1).unwrap_or(usize::MAX);
            let texts: Option<Vec<&String>> = rows
                .iter()
                .filter(|row| !matches!(row.get(n), Some(Expr::Constant { text: None, .. })))
                .map(|row| match row.get(n) {
                    Some(Expr::Constant { text, .. }) => text.as_ref(),
                    _ => None,
                })
                .collect();
            *relation == values
                && DISTINCT.contains(operator)
                && !self.facts.nondeterministic.contains(collation)
                && !self.spend(rows.len())
                && texts.is_some_and(|t| t.iter().collect::<BTreeSet<_>>().len() == t.len())
        })
    }
}

/// Equalities, under a deterministic collation, of values that print differently unless they are the same: of
/// boolean, text, uuid and integers of all sizes.
const DISTINCT: [Oid; 12] = [91, 98, 2972, 94, 96, 410, 15, 416, 532, 533, 1862, 1868];

#[cfg(test)]
mod tests {
    use crate::proof::sample::*;
    use crate::query_tree::{Expr, JoinKind, Node, Oid, Operator, Query, Relation};

    const INTEGERS: Oid = 410;

    fn joined(inner: Query, on: Expr) -> Query {
        let from = join(JoinKind::Left, Node::Relation(0), Node::Relation(1), on);
        let mut view = select(&[PROFILE], vec![from], None, vec![column(0, 2), column(1, 1)]);
        view.relations.push(Relation::Subquery(Box::new(inner)));
        view
    }

    #[test]
    fn a_number_picks_one_row_of_what_is_fixed() {
        let mut facts = facts();
        facts.equality.insert(INTEGERS, vec![FAMILY]);
        facts.foreign_keys[0].columns = vec![(2, 2, EQUAL)];
        let is_one = |partition: &[u32], by: Oid| {
            let numbered = Query {
                windows: vec![groups(partition)],
                numbers: vec![(3, partition.to_vec())],
                ..select(
                    &[MEMBER],
                    vec![Node::Relation(0)],
                    None,
                    vec![column(0, 2), column(0, 3), Expr::Computed(vec![])],
                )
            };
            let first = compare(by, column(1, 3), constant("1"));
            let on = Expr::And(vec![equal(column(1, 1), column(0, 2)), first]);
            proven_by(&joined(numbered, on), &facts).is_ok()
        };
        assert!(is_one(&[1], INTEGERS));
        assert!(!is_one(&[1, 2], INTEGERS));
        assert!(!is_one(&[1], LESS));
    }

    #[test]
    fn a_value_picks_one_of_constant_rows_that_differ() {
        const TEXTS: Oid = 98;
        let is_one = |rows: &[Expr], oid: Oid, collation: Oid| {
            let mut facts = with_others();
            facts.equality.insert(oid, vec![FAMILY]);
            let values = rows.iter().map(|r| vec![r.clone()]).collect();
            let inner = Query {
                relations: vec![Relation::Values(values)],
                ..select(&[], vec![Node::Relation(0)], None, vec![column(0, 1)])
            };
            let (left, right) = (column(1, 1), vec![column(0, 3)]);
            let on = Expr::Operator(Box::new(Operator { oid, collation, left, right }));
            proven_by(&joined(inner, on), &facts).is_ok()
        };
        let null = Expr::Constant { r#type: 25, text: None };
        let differ = [constant("a"), null.clone(), constant("b"), null];
        assert!(is_one(&differ, TEXTS, 0));
        assert!(!is_one(&differ, EQUAL + 1000, 0));
        assert!(!is_one(&differ, TEXTS, BLURRED));
        assert!(!is_one(&[constant("a"), constant("a")], TEXTS, 0));
        assert!(!is_one(&[constant("a"), Expr::Other(vec![])], TEXTS, 0));
    }
}
