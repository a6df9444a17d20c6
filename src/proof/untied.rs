//! Why a range-table entry is not tied, in the words that help whoever wrote the view.
//!
//! Pure. Invariant: only says what is wrong; that it is refused has been decided.

use crate::error::Error;
use crate::proof::ties::only_to_everyone;
use crate::proof::{Prover, Slot, Source, Tie};
use crate::query_tree::Expr;

impl Prover<'_> {
    pub(super) fn untied(&self, rte: usize, ties: &[Vec<Tie>]) -> Error {
        let table = self.rte_name(rte);
        let around = self.around(rte);
        if around.iter().any(|scope| self.is_asked(*scope)) {
            return Error::AskedWhole(table);
        }
        let compared = self.compared(rte, ties);
        let windows = |scope: &usize| !self.scopes[*scope].query.windows.is_empty();
        if compared.is_none() && around.iter().any(windows) {
            return Error::BehindWindow(table);
        }
        Error::Untied { table, compared }
    }

    /// Its query, and those around it.
    fn around(&self, rte: usize) -> Vec<usize> {
        let is_there = |slot: &Slot| matches!(slot, Slot::Table(r) if *r == rte);
        let own = self.scopes.iter().position(|s| s.slots.iter().any(is_there));
        std::iter::successors(own, |scope| self.scopes[*scope].outer).collect()
    }

    /// Whether a query is the right side of IN or the like that is a value, and no condition.
    fn is_asked(&self, scope: usize) -> bool {
        let Some(outer) = self.scopes[scope].outer else {
            return false;
        };
        let query = self.scopes[outer].query;
        let conditions = query.conditions();
        let is_condition = |part: &Expr| conditions.iter().any(|c| std::ptr::eq(c.expr, part));
        let parts = query.expressions().into_iter().flat_map(|e| self.within(e));
        let mut parts = parts.filter(|part| !is_condition(part));
        parts.any(|part| match part {
            Expr::Query { query, any, .. } if !any.is_empty() => {
                let inner = self.nested.get(&(outer, std::ptr::from_ref(&**query)));
                inner == Some(&scope)
            }
            _ => false,
        })
    }

    /// What of it is compared with what.
    fn compared(&self, rte: usize, ties: &[Vec<Tie>]) -> Option<(String, String)> {
        self.equalities[rte].iter().find_map(|e| {
            let (mine, column) = e.place;
            let what = match e.sources.first()? {
                Source::Column((other, theirs)) if !only_to_everyone(&ties[*other], ties) => {
                    let column = self.column(self.rtes[*other].table, *theirs);
                    format!("{}.{column}", self.rte_name(*other))
                }
                Source::Column(_) => return None,
                Source::Constant { .. } => "a constant".into(),
            };
            Some((self.column(self.rtes[mine].table, column), what))
        })
    }
}
