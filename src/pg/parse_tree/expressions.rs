//! Reads an expression of the server's parse tree.
//!
//! Invariant: each node's own functions are noted, and each expression below it is somewhere in what is made of
//! it. What is deeper, or more, than is allowed is left out, and that is noted: then the view is refused.

use super::nodes::{
    Element, arguments, children, collates_alike, elements, list, stripped, uncast,
};
use super::pause;
use super::reader::Reader;
use super::uses::sql_value;
use crate::pg::value::Value;
use crate::query_tree::{Any, Expr, Operator, Query, Test, bounds};
use pgrx::pg_sys::{self, NodeTag, Oid};

// SAFETY (of every unsafe block below): `get_view_query` returns a valid parse tree; a node's tag says
// its struct, each field is of the type that parsenodes.h and primnodes.h give, and nothing is kept.
impl Reader<'_> {
    pub(super) unsafe fn optional(&mut self, n: *mut pg_sys::Node) -> Option<Expr> {
        // SAFETY: see above.
        (!n.is_null()).then(|| unsafe { self.expr(n) })
    }

    pub(super) unsafe fn exprs(&mut self, nodes: *mut pg_sys::List) -> Vec<Expr> {
        // SAFETY: see above.
        unsafe {
            list::<pg_sys::Node>(nodes)
                .into_iter()
                .filter(|n| !n.is_null())
                .map(|n| self.expr(n))
                .collect()
        }
    }

    pub(super) unsafe fn expr(&mut self, n: *mut pg_sys::Node) -> Expr {
        pause();
        self.uses.depth += 1;
        self.uses.expressions += 1;
        if self.uses.depth > bounds::DEPTH {
            self.uses.beyond = Some(bounds::DEEP);
        } else if self.uses.expressions > bounds::EXPRESSIONS {
            self.uses.beyond = Some(bounds::MANY_EXPRESSIONS);
        }
        let expr = if self.uses.beyond.is_some() {
            Expr::Other(vec![])
        } else {
            // SAFETY: see above.
            unsafe { self.expr_of(n) }
        };
        self.uses.depth -= 1;
        expr
    }

    unsafe fn expr_of(&mut self, n: *mut pg_sys::Node) -> Expr {
        // SAFETY: see above.
        unsafe {
            self.functions(n);
            match (*n).type_ {
                NodeTag::T_Var => {
                    let v = &*n.cast::<pg_sys::Var>();
                    Expr::Column {
                        up: v.varlevelsup as usize,
                        relation: v.varno as usize - 1,
                        number: v.varattno,
                    }
                }
                NodeTag::T_Const => constant(&*n.cast::<pg_sys::Const>()),
                // No other value; but a grouping or a window goes by the collation.
                NodeTag::T_CollateExpr => {
                    let c = &*n.cast::<pg_sys::CollateExpr>();
                    let below: *mut pg_sys::Node = c.arg.cast();
                    let expr = self.expr(below);
                    if collates_alike(n, below) { expr } else { Expr::Other(vec![expr]) }
                }
                _ if let Some(same) = uncast(n) => self.expr(same),
                NodeTag::T_BoolExpr | NodeTag::T_NullTest | NodeTag::T_BooleanTest => self.truth(n),
                NodeTag::T_OpExpr => {
                    let o = &*n.cast::<pg_sys::OpExpr>();
                    self.operator(o.opno, o.inputcollid, arguments(o.args))
                }
                NodeTag::T_ScalarArrayOpExpr if (*n.cast::<pg_sys::ScalarArrayOpExpr>()).useOr => {
                    self.any_element(&*n.cast::<pg_sys::ScalarArrayOpExpr>())
                }
                NodeTag::T_CoalesceExpr | NodeTag::T_MinMaxExpr | NodeTag::T_NullIfExpr => {
                    self.either(n)
                }
                NodeTag::T_CaseExpr => self.case(&*n.cast::<pg_sys::CaseExpr>()),
                NodeTag::T_SubLink => self.sublink(&*n.cast::<pg_sys::SubLink>()),
                NodeTag::T_SortGroupClause => {
                    self.sorted(&*n.cast::<pg_sys::SortGroupClause>());
                    Expr::Other(vec![])
                }
                NodeTag::T_SQLValueFunction => {
                    let f = &*n.cast::<pg_sys::SQLValueFunction>();
                    self.uses.values.insert(sql_value(f.op));
                    Expr::Other(vec![])
                }
                NodeTag::T_Query => Expr::Query {
                    query: Box::new(self.query(n.cast())),
                    value: false,
                    any: vec![],
                    beside: vec![],
                },
                tag => {
                    let parts: Vec<Expr> = children(n).into_iter().map(|n| self.expr(n)).collect();
                    self.sorted_rows(n, &parts);
                    let computed =
                        [NodeTag::T_Aggref, NodeTag::T_WindowFunc, NodeTag::T_GroupingFunc];
                    if computed.contains(&tag) { Expr::Computed(parts) } else { Expr::Other(parts) }
                }
            }
        }
    }

    /// AND, OR, NOT, IS NULL, IS TRUE and the like.
    unsafe fn truth(&mut self, n: *mut pg_sys::Node) -> Expr {
        // SAFETY: see above.
        unsafe {
            match (*n).type_ {
                NodeTag::T_BoolExpr => {
                    let b = &*n.cast::<pg_sys::BoolExpr>();
                    let parts = self.exprs(b.args);
                    match b.boolop {
                        pg_sys::BoolExprType::AND_EXPR => Expr::And(parts),
                        pg_sys::BoolExprType::OR_EXPR => Expr::Or(parts),
                        _ => test(Test::False, parts),
                    }
                }
                NodeTag::T_NullTest => {
                    let t = &*n.cast::<pg_sys::NullTest>();
                    let of = vec![self.expr(t.arg.cast())];
                    match t.nulltesttype {
                        // Of a row, each field is asked.
                        _ if t.argisrow => Expr::Other(of),
                        pg_sys::NullTestType::IS_NULL => test(Test::Null, of),
                        _ => test(Test::NotNull, of),
                    }
                }
                _ => {
                    let t = &*n.cast::<pg_sys::BooleanTest>();
                    let of = vec![self.expr(t.arg.cast())];
                    match t.booltesttype {
                        pg_sys::BoolTestType::IS_TRUE => test(Test::True, of),
                        pg_sys::BoolTestType::IS_FALSE => test(Test::False, of),
                        _ => Expr::Other(of),
                    }
                }
            }
        }
    }

    /// COALESCE, GREATEST, LEAST; and NULLIF, whose result is the first value or NULL.
    unsafe fn either(&mut self, n: *mut pg_sys::Node) -> Expr {
        // SAFETY: see above.
        unsafe {
            let args = match (*n).type_ {
                NodeTag::T_CoalesceExpr => (*n.cast::<pg_sys::CoalesceExpr>()).args,
                NodeTag::T_MinMaxExpr => (*n.cast::<pg_sys::MinMaxExpr>()).args,
                _ => (*n.cast::<pg_sys::NullIfExpr>()).args,
            };
            let mut results = self.exprs(args);
            let count = if (*n).type_ == NodeTag::T_NullIfExpr { 1 } else { results.len() };
            let beside = results.split_off(count.min(results.len()));
            Expr::Either { results, beside }
        }
    }

    unsafe fn operator(&mut self, oid: Oid, collation: Oid, args: Vec<*mut pg_sys::Node>) -> Expr {
        // SAFETY: see above.
        unsafe {
            match args[..] {
                [left, right] => Expr::Operator(Box::new(Operator {
                    oid: oid.to_u32(),
                    collation: collation.to_u32(),
                    left: self.expr(left),
                    right: vec![self.expr(right)],
                })),
                _ => Expr::Other(args.into_iter().map(|n| self.expr(n)).collect()),
            }
        }
    }

    /// `left operator ANY (array)`.
    unsafe fn any_element(&mut self, o: &pg_sys::ScalarArrayOpExpr) -> Expr {
        // SAFETY: see above.
        unsafe {
            let [left, right] = arguments(o.args)[..] else {
                return Expr::Other(self.exprs(o.args));
            };
            if let Some(query) = self.array_of(right) {
                return Expr::Query {
                    query: Box::new(query),
                    value: false,
                    any: vec![Any {
                        number: 1,
                        operator: o.opno.to_u32(),
                        collation: o.inputcollid.to_u32(),
                        left: self.expr(left),
                    }],
                    beside: vec![],
                };
            }
            let Some(right) = elements(right) else {
                return Expr::Other(vec![self.expr(left), self.expr(right)]);
            };
            let left = self.expr(left);
            let right = right.into_iter().map(|e| match e {
                Element::Node(n) => self.expr(n),
                Element::Constant(c) => c,
            });
            Expr::Operator(Box::new(Operator {
                oid: o.opno.to_u32(),
                collation: o.inputcollid.to_u32(),
                right: right.collect(),
                left,
            }))
        }
    }

    unsafe fn case(&mut self, c: &pg_sys::CaseExpr) -> Expr {
        // SAFETY: see above.
        unsafe {
            let mut beside: Vec<Expr> = self.optional(c.arg.cast()).into_iter().collect();
            let mut results = vec![];
            for w in list::<pg_sys::CaseWhen>(c.args) {
                beside.extend(self.optional((*w).expr.cast()));
                results.extend(self.optional((*w).result.cast()));
            }
            results.extend(self.optional(c.defresult.cast()));
            Expr::Either { results, beside }
        }
    }

    unsafe fn sublink(&mut self, s: &pg_sys::SubLink) -> Expr {
        // SAFETY: see above.
        unsafe {
            let query = Box::new(self.query(s.subselect.cast()));
            let test = s.testexpr;
            if s.subLinkType == pg_sys::SubLinkType::ANY_SUBLINK
                && let Some(any) = self.any_of_query(test)
            {
                return Expr::Query { query, value: false, any, beside: vec![] };
            }
            Expr::Query {
                query,
                value: s.subLinkType == pg_sys::SubLinkType::EXPR_SUBLINK,
                any: vec![],
                beside: self.optional(test).into_iter().collect(),
            }
        }
    }

    /// The test of x = ANY (SELECT y): an operator on x and the parameter that stands for y; of several, all must
    /// be true.
    unsafe fn any_of_query(&mut self, test: *mut pg_sys::Node) -> Option<Vec<Any>> {
        // SAFETY: see above.
        unsafe {
            if test.is_null() {
                return None;
            }
            let tests = match (*test).type_ {
                NodeTag::T_BoolExpr
                    if (*test.cast::<pg_sys::BoolExpr>()).boolop
                        == pg_sys::BoolExprType::AND_EXPR =>
                {
                    arguments((*test.cast::<pg_sys::BoolExpr>()).args)
                }
                _ => vec![test],
            };
            let parameter = |n: *mut pg_sys::Node| -> Option<(*mut pg_sys::Node, i16)> {
                if (*n).type_ != NodeTag::T_OpExpr {
                    return None;
                }
                let [left, right] = arguments((*n.cast::<pg_sys::OpExpr>()).args)[..] else {
                    return None;
                };
                let p = stripped(right);
                let is_one = (*p).type_ == NodeTag::T_Param;
                is_one
                    .then(|| Some((left, (*p.cast::<pg_sys::Param>()).paramid.try_into().ok()?)))?
            };
            let all: Option<Vec<_>> = tests.iter().map(|n| parameter(*n)).collect();
            let mut found = vec![];
            for ((left, number), n) in all?.into_iter().zip(tests) {
                self.functions(n);
                let o = &*n.cast::<pg_sys::OpExpr>();
                arguments(o.args).into_iter().skip(1).for_each(|right| self.functions(right));
                found.push(Any {
                    number,
                    operator: o.opno.to_u32(),
                    collation: o.inputcollid.to_u32(),
                    left: self.expr(left),
                });
            }
            Some(found)
        }
    }

    /// The query of ARRAY (SELECT …).
    unsafe fn array_of(&mut self, n: *mut pg_sys::Node) -> Option<Query> {
        // SAFETY: see above.
        unsafe {
            let below = stripped(n);
            if (*below).type_ != NodeTag::T_SubLink {
                return None;
            }
            let s = &*below.cast::<pg_sys::SubLink>();
            if s.subLinkType != pg_sys::SubLinkType::ARRAY_SUBLINK {
                return None;
            }
            self.functions(n);
            self.functions(below);
            Some(self.query(s.subselect.cast()))
        }
    }
}

fn test(is: Test, mut of: Vec<Expr>) -> Expr {
    match of.pop() {
        Some(one) if of.is_empty() => Expr::Test { is, of: Box::new(one) },
        last => Expr::Other(of.into_iter().chain(last).collect()),
    }
}

fn constant(c: &pg_sys::Const) -> Expr {
    let value = Value { datum: c.constvalue, oid: c.consttype };
    Expr::Constant { r#type: c.consttype.to_u32(), text: (!c.constisnull).then(|| value.to_text()) }
}
