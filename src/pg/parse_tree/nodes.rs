//! Small looks at the server's nodes: lists, texts, casts, arrays, LIMIT, UNION.
//!
//! Invariant: nothing is changed or kept; what is not recognized is said not to be it.

use crate::pg::value::Value;
use crate::query_tree::{EqualityOp, Expr, Limit};
use pgrx::pg_sys::{self, NodeTag, Oid};
use pgrx::{PgList, pg_guard};
use std::ffi::{CStr, c_void};

/// The elements of a List of nodes.
///
/// # Safety
/// `list` is NIL or a list of pointers to `T`.
pub(super) unsafe fn list<T>(list: *mut pg_sys::List) -> Vec<*mut T> {
    // SAFETY: as said.
    unsafe { PgList::<T>::from_pg(list) }.iter_ptr().collect()
}

/// # Safety
/// `s` is NULL or a C string.
pub(super) unsafe fn text(s: *const std::ffi::c_char) -> String {
    if s.is_null() {
        return String::new();
    }
    // SAFETY: as said.
    unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned()
}

/// Expressions of a List.
///
/// # Safety
/// As for [`list`].
pub(super) unsafe fn arguments(args: *mut pg_sys::List) -> Vec<*mut pg_sys::Node> {
    // SAFETY: as said.
    unsafe { list(args) }
}

/// The expressions directly below a node.
pub(super) unsafe fn children(n: *mut pg_sys::Node) -> Vec<*mut pg_sys::Node> {
    #[pg_guard]
    unsafe extern "C-unwind" fn note(n: *mut pg_sys::Node, found: *mut c_void) -> bool {
        if n.is_null() {
            return false;
        }
        // SAFETY: the vector below; what wraps an expression is looked through.
        unsafe {
            match (*n).type_ {
                NodeTag::T_TargetEntry | NodeTag::T_List => {
                    pg_sys::expression_tree_walker(n, Some(note), found)
                }
                _ => {
                    (*found.cast::<Vec<*mut pg_sys::Node>>()).push(n);
                    false
                }
            }
        }
    }
    let mut found = vec![];
    // SAFETY: `n` is an expression; `found` outlives the walk.
    unsafe { pg_sys::expression_tree_walker(n, Some(note), (&raw mut found).cast()) };
    found
}

/// What is below a cast that keeps the value, equal and different as it was: to or from a domain,
/// between text and varchar, to a wider integer or numeric. A foreign key compares its columns by
/// such casts too. One with a length may shorten the value, one to a domain bring another collation.
pub(super) unsafe fn uncast(n: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
    // SAFETY: `n` is an expression.
    unsafe {
        let below: *mut pg_sys::Node = match (*n).type_ {
            NodeTag::T_RelabelType => (*n.cast::<pg_sys::RelabelType>()).arg.cast(),
            NodeTag::T_CoerceToDomain => (*n.cast::<pg_sys::CoerceToDomain>()).arg.cast(),
            NodeTag::T_FuncExpr => {
                let f = &*n.cast::<pg_sys::FuncExpr>();
                match arguments(f.args)[..] {
                    [one]
                        if f.funcformat == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
                            || f.funcformat == pg_sys::CoercionForm::COERCE_EXPLICIT_CAST =>
                    {
                        one
                    }
                    _ => return None,
                }
            }
            _ => return None,
        };
        const TEXTS: [Oid; 2] = [pg_sys::TEXTOID, pg_sys::VARCHAROID];
        const NUMBERS: [Oid; 4] =
            [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID];
        let from = pg_sys::getBaseType(pg_sys::exprType(below));
        let to = pg_sys::getBaseType(pg_sys::exprType(n));
        let place = |oid| NUMBERS.iter().position(|n| *n == oid);
        let wider = place(from).zip(place(to)).is_some_and(|(from, to)| from <= to);
        let kept = from == to || TEXTS.contains(&from) && TEXTS.contains(&to) || wider;
        (kept && collates_alike(n, below)).then_some(below)
    }
}

/// Whether the same values are equal by the collation of either expression.
pub(super) unsafe fn collates_alike(n: *mut pg_sys::Node, below: *mut pg_sys::Node) -> bool {
    // SAFETY: both are expressions; what they collate by exists.
    unsafe {
        let collations = [pg_sys::exprCollation(n), pg_sys::exprCollation(below)];
        let plain = |oid: &Oid| *oid == Oid::INVALID || pg_sys::get_collation_isdeterministic(*oid);
        collations[0] == collations[1] || collations.iter().all(plain)
    }
}

/// The node below mere relabelling.
pub(super) unsafe fn stripped(n: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: `n` is an expression.
    unsafe {
        if (*n).type_ == NodeTag::T_RelabelType {
            stripped((*n.cast::<pg_sys::RelabelType>()).arg.cast())
        } else {
            n
        }
    }
}

/// Adds the relations under a tree of set operations, and the equalities by which it compares its columns; false
/// where one of them is no UNION.
pub(super) unsafe fn union(
    n: *mut pg_sys::Node,
    arms: &mut Vec<usize>,
    union_by: &mut Vec<(i16, EqualityOp)>,
) -> bool {
    // SAFETY: a tree of set operations over range table references.
    unsafe {
        if (*n).type_ == NodeTag::T_RangeTblRef {
            arms.push((*n.cast::<pg_sys::RangeTblRef>()).rtindex as usize - 1);
            return true;
        }
        let s = &*n.cast::<pg_sys::SetOperationStmt>();
        let collations = PgList::<c_void>::from_pg(s.colCollations);
        let columns = list::<pg_sys::SortGroupClause>(s.groupClauses);
        for ((number, c), collation) in (1..).zip(columns).zip(collations.iter_oid()) {
            union_by.push((number, ((*c).eqop.to_u32(), collation.to_u32())));
        }
        let sides = [s.larg, s.rarg].map(|side| union(side, arms, union_by));
        s.op == pg_sys::SetOperation::SETOP_UNION && sides == [true, true]
    }
}

pub(super) unsafe fn limit(q: &pg_sys::Query) -> Limit {
    // SAFETY: LIMIT is an expression, folded where it is a constant.
    unsafe {
        if q.limitCount.is_null() && q.limitOffset.is_null() {
            return Limit::None;
        }
        let mut n = q.limitCount;
        // An int4 made int8.
        if !n.is_null()
            && (*n).type_ == NodeTag::T_FuncExpr
            && (*n.cast::<pg_sys::FuncExpr>()).funcformat
                == pg_sys::CoercionForm::COERCE_IMPLICIT_CAST
            && let [arg] = arguments((*n.cast::<pg_sys::FuncExpr>()).args)[..]
        {
            n = arg;
        }
        if !n.is_null()
            && (*n).type_ == NodeTag::T_Const
            && q.limitOption != pg_sys::LimitOption::LIMIT_OPTION_WITH_TIES
        {
            let c = &*n.cast::<pg_sys::Const>();
            if !c.constisnull && c.constvalue.value() as i64 == 1 {
                return Limit::One;
            }
        }
        Limit::Some
    }
}

pub(super) enum Element {
    Node(*mut pg_sys::Node),
    Constant(Expr),
}

/// The elements of an array that is written out.
pub(super) unsafe fn elements(n: *mut pg_sys::Node) -> Option<Vec<Element>> {
    // SAFETY: an expression of an array type; a constant one is deconstructed as its type says.
    unsafe {
        let n = stripped(n);
        match (*n).type_ {
            NodeTag::T_ArrayExpr => {
                let a = &*n.cast::<pg_sys::ArrayExpr>();
                (!a.multidims).then(|| list(a.elements).into_iter().map(Element::Node).collect())
            }
            NodeTag::T_Const => {
                let c = &*n.cast::<pg_sys::Const>();
                if c.constisnull {
                    return Some(vec![]);
                }
                let value = Value { datum: c.constvalue, oid: c.consttype };
                let element = pg_sys::get_element_type(c.consttype);
                let texts = value.elements(element)?;
                Some(
                    texts
                        .into_iter()
                        .map(|text| {
                            Element::Constant(Expr::Constant { r#type: element.to_u32(), text })
                        })
                        .collect(),
                )
            }
            _ => None,
        }
    }
}
