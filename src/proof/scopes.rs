//! A view's queries, each at its place, and where in them a column comes from.
//!
//! Pure. Invariant: every query, every table and every column that the view reads is here once for each place
//! where it stands; what stands too deep or too often is refused.

use crate::error::Error;
use crate::proof::{Prover, RangeTableEntry, Scope, Slot};
use crate::query_tree::{Expr, JoinKind, Node, Query, Relation, bounds};
use std::collections::BTreeSet;

impl<'a> Prover<'a> {
    /// Takes a query in, and all that is nested in it; it stands so many queries deep.
    pub(super) fn enter(
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
                    if self.rtes.len() >= bounds::TABLES {
                        return Err(Error::Unsupported(bounds::MANY_TABLES));
                    }
                    self.rtes.push(RangeTableEntry {
                        table: *oid,
                        alias: alias.clone(),
                        columns: BTreeSet::new(),
                    });
                    Slot::Table(self.rtes.len() - 1)
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
                Relation::Join(_)
                | Relation::Values(_)
                | Relation::Function(_)
                | Relation::Empty => Slot::Other,
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

    /// Notes which columns of which range-table entry a query reads.
    pub(super) fn read_columns(&mut self, scope: usize) -> Result<(), Error> {
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
                (Some(Slot::Table(rte)), _) => {
                    self.rtes[*rte].columns.insert(*number);
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
}

fn has_full_join(node: &Node) -> bool {
    match node {
        Node::Relation(_) => false,
        Node::Join { kind, sides, .. } => {
            *kind == JoinKind::Full || sides.iter().any(has_full_join)
        }
    }
}
