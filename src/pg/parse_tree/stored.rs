//! What expressions that the catalogs keep (pg_node_tree as text) call and print: parsed bodies of functions,
//! CHECKs, expressions and predicates of indexes, statistics.
//!
//! Invariant: as for a view: all of it is walked, or it is said not to be.

use super::nodes::{arguments, children};
use super::reader::Reader;
use super::uses::sql_value;
use super::{Uses, pause};
use crate::query_tree::{Expr, bounds};
use pgrx::pg_guard;
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::collections::BTreeSet;
use std::ffi::{CString, c_void};

/// Functions of an expression of the catalogs, by what a planner does with them.
#[derive(Default)]
pub struct Simplified {
    /// Those whose arguments have no column in them: it may call them.
    pub folded: BTreeSet<u32>,
    /// All others: it may put the body of one that is written in SQL in its place, and go on with that.
    pub others: BTreeSet<u32>,
}

/// What a planner may do to simplify an expression of the catalogs. None where it is nested too deep to be
/// read.
pub fn simplified(tree: &str) -> Option<Simplified> {
    let mut found = Simplified::default();
    let mut depth = 0;
    let tree = CString::new(tree).ok()?;
    // SAFETY: the text is one that the server itself has written.
    let whole = unsafe { fold(pg_sys::stringToNode(tree.as_ptr()).cast(), &mut found, &mut depth) };
    whole.then_some(found)
}

/// Whether all of it could be read.
///
/// # Safety
/// `n` is an expression or a list of them.
unsafe fn fold(n: *mut pg_sys::Node, found: &mut Simplified, depth: &mut usize) -> bool {
    #[pg_guard]
    unsafe extern "C-unwind" fn note(function: Oid, found: *mut c_void) -> bool {
        // SAFETY: the set below.
        unsafe { (*found.cast::<BTreeSet<u32>>()).insert(function.to_u32()) };
        false
    }
    // SAFETY: as said; `found` outlives the call.
    unsafe {
        if n.is_null() {
            return true;
        }
        pause();
        *depth += 1;
        if *depth > bounds::DEPTH {
            return false;
        }
        if (*n).type_ == NodeTag::T_List {
            let all = arguments(n.cast()).into_iter().all(|n| fold(n, found, depth));
            *depth -= 1;
            return all;
        }
        let functions = if pg_sys::contain_var_clause(n) {
            &raw mut found.others
        } else {
            &raw mut found.folded
        };
        pg_sys::check_functions_in_node(n, Some(note), functions.cast());
        let all = children(n).into_iter().all(|n| fold(n, found, depth));
        *depth -= 1;
        all
    }
}

/// What an expression of the catalogs uses (pg_node_tree as text): a function's parsed body, a CHECK. None
/// where it is nested too deep to be read.
pub fn of_expression(tree: &str) -> Option<Uses> {
    #[pg_guard]
    unsafe extern "C-unwind" fn visit(n: *mut pg_sys::Node, reader: *mut c_void) -> bool {
        if n.is_null() {
            return false;
        }
        // SAFETY: a node of a valid tree, and the reader below, which outlives the walk.
        unsafe {
            pause();
            let r = &mut *reader.cast::<Reader>();
            r.uses.depth += 1;
            if r.uses.depth > bounds::DEPTH {
                r.uses.beyond = Some(bounds::DEEP);
                return true;
            }
            let stop = match (*n).type_ {
                NodeTag::T_Query => pg_sys::query_tree_walker(
                    n.cast(),
                    Some(visit),
                    reader,
                    pg_sys::QTW_EXAMINE_SORTGROUP as i32,
                ),
                tag => {
                    if tag == NodeTag::T_SortGroupClause {
                        r.sorted(&*n.cast::<pg_sys::SortGroupClause>());
                    }
                    if tag == NodeTag::T_SQLValueFunction {
                        let f = &*n.cast::<pg_sys::SQLValueFunction>();
                        r.uses.values.insert(sql_value(f.op));
                    }
                    r.functions(n);
                    pg_sys::expression_tree_walker(n, Some(visit), reader)
                }
            };
            (*reader.cast::<Reader>()).uses.depth -= 1;
            stop
        }
    }
    let tree = CString::new(tree).ok()?;
    let mut uses = Uses::default();
    let mut reader = Reader::new(&mut uses, Oid::INVALID);
    // SAFETY: the text is one that the server itself has written.
    unsafe {
        let tree = pg_sys::stringToNode(tree.as_ptr());
        visit(tree.cast(), (&raw mut reader).cast());
    }
    uses.with_fields();
    uses.beyond.is_none().then_some(uses)
}

/// An index's predicate, if it calls, compares and prints by nothing but the server's own. None where
/// something of another's is in it, which may be replaced and mean something else then, or that is too deep to be read.
pub fn plain_condition(tree: &str) -> Option<Expr> {
    let uses = of_expression(tree)?;
    let own = |oid: &u32| *oid >= pg_sys::FirstNormalObjectId;
    if uses.functions.iter().any(own) {
        return None;
    }
    let tree = CString::new(tree).ok()?;
    let mut uses = Uses::default();
    let mut reader = Reader::new(&mut uses, Oid::INVALID);
    // SAFETY: the text is one that the server itself has written, of an expression.
    let condition = unsafe {
        let n = pg_sys::stringToNode(tree.as_ptr()).cast();
        if !constants_are_plain(n) {
            return None;
        }
        reader.expr(n)
    };
    uses.beyond.is_none().then_some(condition)
}

/// Whether reading its constants runs nothing but the server's own code: they are of its types, or enums.
///
/// # Safety
/// `n` is an expression, not too deep to be walked.
unsafe fn constants_are_plain(n: *mut pg_sys::Node) -> bool {
    // SAFETY: as said.
    unsafe {
        if n.is_null() {
            return true;
        }
        pause();
        match (*n).type_ {
            NodeTag::T_Const => {
                let of = (*n.cast::<pg_sys::Const>()).consttype;
                let element = pg_sys::get_element_type(of);
                let of = if element == Oid::INVALID { of } else { element };
                CONSTANTS.contains(&of) || pg_sys::type_is_enum(of)
            }
            _ => children(n).into_iter().all(|n| constants_are_plain(n)),
        }
    }
}

/// Types of which two values that print the same are the same, whatever the settings.
const CONSTANTS: [Oid; 12] = [
    pg_sys::BOOLOID,
    pg_sys::INT2OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::NUMERICOID,
    pg_sys::TEXTOID,
    pg_sys::VARCHAROID,
    pg_sys::BPCHAROID,
    pg_sys::CHAROID,
    pg_sys::UUIDOID,
    pg_sys::DATEOID,
    pg_sys::TIMESTAMPTZOID,
];
