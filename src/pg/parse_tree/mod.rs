//! From the server's parse tree of a view to [`crate::query_tree`], and what it calls and prints.
//!
//! The room: it reads the server's trees and knows nothing of what is proven of them. `reader` reads queries,
//! `expressions` what is in them, `uses` notes what each node calls, `stored` does the same for expressions of
//! the catalogs.
//!
//! Invariant: nothing of the tree is left out. A node that has no form of its own there is walked
//! by PostgreSQL's expression_tree_walker; the functions it calls come from check_functions_in_node.
//! (What a type brings along, as the comparison behind GREATEST and the CHECK of a domain, is
//! `proof/reach.rs`'s.) The view stays locked (ACCESS SHARE) to the end of the transaction, nested ones
//! too, so that what was proven of it stays so until then.

mod expressions;
mod nodes;
mod reader;
mod stored;
mod uses;

pub use stored::{of_expression, plain_condition, simplified};

use super::xact;
use crate::error::check_interrupts;
use crate::query_tree::Query;
use pgrx::pg_sys::{self, Oid};
use reader::Reader;
use std::collections::BTreeSet;

/// What a view calls and prints, at any depth.
#[derive(Default, Debug)]
pub struct Uses {
    /// Functions, those behind operators and casts included.
    pub functions: BTreeSet<u32>,
    /// Operators by which something is sorted or told apart.
    pub operators: BTreeSet<u32>,
    /// Types of values that a polymorphic function or a cast turns into text or json.
    pub printed: BTreeSet<u32>,
    /// Types of which something makes values out of texts, without a node that says so: the columns of a
    /// JSON_TABLE, the fields of jsonb_to_record().
    pub made: BTreeSet<u32>,
    /// CURRENT_USER, CURRENT_DATE and the like.
    pub values: BTreeSet<&'static str>,
    /// The type of a value that names a text search object and is no constant: pg_depend does not say which.
    pub unfollowed: Option<&'static str>,
    /// Nested views, itself included.
    pub views: BTreeSet<u32>,
    /// Aggregates and LIMITs whose rows come in no order that the view gives.
    pub unordered: BTreeSet<String>,
    /// What a record that is printed or made may consist of.
    fields: BTreeSet<u32>,
    /// How many tables and views have been read, and entries of range tables in all.
    relations: usize,
    entries: usize,
    /// How deep the expression being read is, how many there have been, and which bound they are beyond.
    depth: usize,
    expressions: usize,
    beyond: Option<&'static str>,
    wait: bool,
}

/// Belongs into whatever walks what others have written: the server may end it, and it may not use up the stack.
pub fn pause() {
    // SAFETY: looks how much of the stack is in use.
    unsafe { pg_sys::check_stack_depth() };
    check_interrupts();
}

/// A view's query; None where the relation is no view.
///
/// `wait`: for another transaction that is changing the view, or one that it reads. DDL must not:
/// it holds locks that others wait for. Such a view is one that cannot be proven.
pub fn of_view(view: Oid, wait: bool) -> Option<(Query, Uses)> {
    let mut uses = Uses { wait, ..Uses::default() };
    let mut query = read_view(view, &mut uses)?;
    query.unsupported = uses.beyond.or(query.unsupported);
    uses.with_fields();
    Some((query, uses))
}

impl Uses {
    /// Who prints or makes a record does so with what it may consist of.
    fn with_fields(&mut self) {
        for types in [&mut self.printed, &mut self.made] {
            let records = [pg_sys::RECORDOID, pg_sys::RECORDARRAYOID];
            if records.iter().any(|r| types.contains(&r.to_u32())) {
                types.extend(&self.fields);
            }
        }
    }
}

fn read_view(view: Oid, uses: &mut Uses) -> Option<Query> {
    let share = pg_sys::AccessShareLock as i32;
    // SAFETY: a view is locked and open, and so its rule alive, while the tree is read. What is no view
    // is not locked here.
    unsafe {
        let is_view = || pg_sys::get_rel_relkind(view) == pg_sys::RELKIND_VIEW as std::ffi::c_char;
        if !is_view() {
            return None;
        }
        if uses.wait {
            pg_sys::LockRelationOid(view, share);
        } else if !lock_soon(view, share) {
            return Some(Query {
                unsupported: Some("a view that another transaction is changing"),
                ..Query::default()
            });
        }
        if !is_view() {
            return None;
        }
        uses.views.insert(view.to_u32());
        let relation = pg_sys::relation_open(view, pg_sys::NoLock as i32);
        let mut reader = Reader::new(uses, view);
        let query = reader.query(pg_sys::get_view_query(relation));
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        Some(query)
    }
}

/// Locks a relation if it is free, or within a moment: a transaction whose end has just woken us gives
/// its locks back one by one.
fn lock_soon(relation: Oid, mode: i32) -> bool {
    const TRIES: u32 = 20;
    (0..TRIES).any(|n| {
        if n > 0 {
            xact::sleep(5);
        }
        // SAFETY: does not wait; released at the transaction's end.
        unsafe { pg_sys::ConditionalLockRelationOid(relation, mode) }
    })
}
