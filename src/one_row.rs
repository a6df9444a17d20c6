//! The proof that a document view has at most one row for each profile.
//!
//! Pure. Invariant: a relation counts as one row only where conditions fix all columns of a unique index
//! of it, by equalities that the index knows, to values that are themselves fixed.

use crate::error::Error;
use crate::proof::{By, Place, Prover, Slot};
use crate::query::{Condition, Expr, Limit, Node, Oid, Relation};
use std::collections::{BTreeSet, HashMap};

impl Prover<'_> {
    /// At most one row of a query, its output columns `given` being fixed.
    pub fn one_row(&self, scope: usize, given: &[i16], profile: Place) -> Result<(), Error> {
        let query = self.scopes[scope].query;
        if query.limit == Limit::One || query.aggregates && query.group_by.is_empty() {
            return Ok(());
        }
        if !query.arms.is_empty() {
            return Err(Error::ManyRows("a UNION".into()));
        }
        let relations: Vec<usize> = query.from.iter().flat_map(Node::relations).collect();
        let conditions = query.conditions();
        let mut fixed: BTreeSet<usize> = BTreeSet::new();
        let mut why: HashMap<usize, Result<(), Error>> = HashMap::new();
        loop {
            let before = fixed.len();
            for r in &relations {
                if fixed.contains(r) {
                    continue;
                }
                let columns = self.fixed_columns(scope, *r, &conditions, given, &fixed);
                let one = match (self.scopes[scope].slots[*r], &query.relations[*r]) {
                    (Slot::Table(o), _) => self.unique(o, &columns, profile),
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
                        one.is_ok()
                    }
                    (_, Relation::Values(rows)) => rows.len() <= 1,
                    _ => true,
                };
                if one {
                    fixed.insert(*r);
                }
            }
            if fixed.len() == before {
                break;
            }
        }
        let by = |references: &[u32]| {
            !references.is_empty()
                && references.iter().all(|r| {
                    query
                        .targets
                        .iter()
                        .enumerate()
                        .filter(|(_, t)| t.reference == *r)
                        .any(|(i, t)| {
                            given.contains(&i16::try_from(i + 1).unwrap_or(0))
                                || self.is_fixed(scope, &t.expr, &fixed)
                        })
                })
        };
        if by(&query.group_by) || by(&query.distinct) {
            return Ok(());
        }
        // Where the query groups, what it groups by has several values.
        let grouped = query
            .targets
            .iter()
            .filter(|t| query.group_by.contains(&t.reference))
            .filter(|t| !self.is_fixed(scope, &t.expr, &fixed))
            .find_map(|t| self.own_column(scope, &t.expr).map(|(r, _)| r));
        let open = relations.iter().find(|r| !fixed.contains(r));
        match grouped.as_ref().or(open) {
            None => Ok(()),
            Some(many) => Err(Error::ManyRows(match self.scopes[scope].slots[*many] {
                Slot::Table(o) => format!("table {}", self.occurrence_name(o)),
                Slot::Query(_) => match why.get(many) {
                    Some(Err(Error::ManyRows(what))) => what.clone(),
                    _ => "a subquery".into(),
                },
                Slot::Other => "VALUES".into(),
            })),
        }
    }

    /// The relations of `home` that a (LATERAL) query in its FROM refers to.
    fn beside(&self, inner: usize, home: usize) -> BTreeSet<usize> {
        let inside = |scope: usize| {
            std::iter::successors(Some(scope), |s| self.scopes[*s].outer).any(|s| s == inner)
        };
        let mut found = BTreeSet::new();
        for scope in (inner..self.scopes.len()).filter(|s| inside(*s)) {
            let mut left = self.scopes[scope].query.expressions();
            while let Some(expr) = left.pop() {
                if let Expr::Column {
                    up,
                    relation,
                    number,
                } = expr
                    && self.out(scope, *up).is_ok_and(|s| s == home)
                {
                    let own = Expr::Column {
                        up: 0,
                        relation: *relation,
                        number: *number,
                    };
                    found.insert(self.own_column(home, &own).map_or(*relation, |(r, _)| r));
                }
                left.extend(expr.parts());
            }
        }
        found
    }

    /// Whether fixing a query's output column by this operator and collation (None: by its type's own)
    /// fixes the value in the tables below.
    fn fixes(&self, scope: usize, number: i16, by: Option<By>) -> bool {
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
        given: &[i16],
        fixed: &BTreeSet<usize>,
    ) -> Vec<(i16, Option<By>)> {
        let query = self.scopes[scope].query;
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
        for number in given.iter().filter(|n| query.passes(**n)) {
            if let Some((_, n)) = query.target(*number).and_then(|t| column(&t.expr)) {
                found.push((n, None));
            }
        }
        found
    }

    /// Whether an expression has one value, the relations in `fixed` having one row.
    fn is_fixed(&self, scope: usize, expr: &Expr, fixed: &BTreeSet<usize>) -> bool {
        match expr {
            Expr::Column { up, .. } if *up > 0 => true,
            Expr::Column { .. } => self
                .own_column(scope, expr)
                .is_some_and(|(r, _)| fixed.contains(&r)),
            Expr::Query { .. } | Expr::Computed(_) => false,
            _ => expr
                .parts()
                .into_iter()
                .all(|p| self.is_fixed(scope, p, fixed)),
        }
    }

    /// Whether at most one row of an occurrence has these columns fixed.
    fn unique(&self, occurrence: usize, columns: &[(i16, Option<By>)], profile: Place) -> bool {
        let table = self.occurrences[occurrence].table;
        // A key that is given is the profile's own, which attach() has found to be unique.
        let (root, key) = profile;
        if root == occurrence && columns.iter().any(|(n, by)| *n == key && by.is_none()) {
            return true;
        }
        let own = |column: i16, family: &Oid| {
            let own = self.facts.families.get(&(table, column));
            own.is_some_and(|own| own.contains(family))
        };
        self.facts.unique.iter().any(|u| {
            u.table == table
                && u.columns.iter().all(|(column, family, collation)| {
                    columns.iter().any(|(n, by)| {
                        n == column
                            && match by {
                                None => own(*column, family),
                                Some((operator, under)) => {
                                    self.facts.equality[operator].contains(family)
                                        && self.tells_apart(*under, *collation)
                                }
                            }
                    })
                })
        })
    }
}
