//! From the server's parse tree of a view to [`crate::query_tree`], and what it calls and prints.
//!
//! Invariant: nothing of the tree is left out. A node that has no form of its own there is walked
//! by PostgreSQL's expression_tree_walker; the functions it calls come from check_functions_in_node.
//! (What a type brings along, as the comparison behind GREATEST and the CHECK of a domain, is `reach.rs`'s.) The view stays locked (ACCESS SHARE) to the end of
//! the transaction, nested ones too, so that what was proven of it stays so until then.

use super::value::Value;
use super::xact;
use crate::error::check_interrupts;
use crate::query_tree::{
    Any, By, Expr, Group, JoinKind, Limit, Node, Operator, Query, Relation, Target, With, bounds,
};
use pgrx::pg_sys::{self, NodeTag, Oid};
use pgrx::{PgList, pg_guard};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_void};

/// What a view calls and prints, at any depth.
#[derive(Default, Debug)]
pub struct Uses {
    /// Functions, those behind operators and casts included.
    pub functions: BTreeSet<u32>,
    /// Operators by which something is sorted or told apart.
    pub operators: BTreeSet<u32>,
    /// Types of values that a polymorphic function or a cast turns into text or json.
    pub printed: BTreeSet<u32>,
    /// CURRENT_USER, CURRENT_DATE and the like.
    pub values: BTreeSet<&'static str>,
    /// The type of a value that names a text search object and is no constant: pg_depend does not say which.
    pub unfollowed: Option<&'static str>,
    /// Nested views, itself included.
    pub views: BTreeSet<u32>,
    /// Aggregates and LIMITs whose rows come in no order that the view gives.
    pub unordered: BTreeSet<String>,
    /// What a printed record may consist of.
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
    uses.print_fields();
    Some((query, uses))
}

impl Uses {
    /// Who prints a record prints what it may consist of.
    fn print_fields(&mut self) {
        if [pg_sys::RECORDOID, pg_sys::RECORDARRAYOID]
            .iter()
            .any(|r| self.printed.contains(&r.to_u32()))
        {
            let fields = std::mem::take(&mut self.fields);
            self.printed.extend(fields);
        }
    }
}

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
    let mut reader =
        Reader { uses: &mut uses, view: Oid::INVALID, aggregate: None, numbers: vec![] };
    // SAFETY: the text is one that the server itself has written.
    unsafe {
        let tree = pg_sys::stringToNode(tree.as_ptr());
        visit(tree.cast(), (&raw mut reader).cast());
    }
    uses.print_fields();
    uses.beyond.is_none().then_some(uses)
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
        let mut reader = Reader { uses, view, aggregate: None, numbers: vec![] };
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

struct Reader<'a> {
    uses: &'a mut Uses,
    view: Oid,
    /// An aggregate without ORDER BY whose result depends on the order, in the query being read.
    aggregate: Option<String>,
    /// The windows of row_number(), in the query being read.
    numbers: Vec<u32>,
}

/// The elements of a List of nodes.
///
/// # Safety
/// `list` is NIL or a list of pointers to `T`.
unsafe fn list<T>(list: *mut pg_sys::List) -> Vec<*mut T> {
    // SAFETY: as said.
    unsafe { PgList::<T>::from_pg(list) }.iter_ptr().collect()
}

/// # Safety
/// `s` is NULL or a C string.
unsafe fn text(s: *const std::ffi::c_char) -> String {
    if s.is_null() {
        return String::new();
    }
    // SAFETY: as said.
    unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned()
}

// SAFETY (of every unsafe block below): `get_view_query` returns a valid parse tree; a node's tag says
// its struct, each field is of the type that parsenodes.h and primnodes.h give, and nothing is kept.
impl Reader<'_> {
    unsafe fn query(&mut self, q: *mut pg_sys::Query) -> Query {
        // SAFETY: see above.
        unsafe {
            pause();
            let q = &*q;
            let outer = self.aggregate.take();
            let outer_numbers = std::mem::take(&mut self.numbers);
            let mut others = vec![];
            let mut unsupported = None;
            let mut refuse = |what| unsupported = Some(what);
            if q.hasTargetSRFs {
                refuse("a set-returning function in a SELECT list");
            }
            if !q.rowMarks.is_null() {
                refuse("FOR UPDATE or FOR SHARE");
            }
            if !q.groupingSets.is_null() {
                refuse("GROUPING SETS, ROLLUP or CUBE");
            }
            let (mut arms, mut union_by) = (vec![], vec![]);
            if !q.setOperations.is_null() && !union(q.setOperations, &mut arms, &mut union_by) {
                refuse("INTERSECT or EXCEPT");
            }
            let relations: Vec<Relation> = list::<pg_sys::RangeTblEntry>(q.rtable)
                .into_iter()
                .map(|r| self.relation(r))
                .collect();
            let with = list::<pg_sys::CommonTableExpr>(q.cteList)
                .into_iter()
                .map(|c| With {
                    name: text((*c).ctename),
                    query: self.query((*c).ctequery.cast()),
                    recursive: (*c).cterecursive,
                })
                .collect();
            let from = list::<pg_sys::Node>((*q.jointree).fromlist)
                .into_iter()
                .map(|n| self.node(n))
                .collect();
            let targets = list::<pg_sys::TargetEntry>(q.targetList)
                .into_iter()
                .map(|t| {
                    let oid = pg_sys::exprType((*t).expr.cast());
                    self.uses.fields.insert(oid.to_u32());
                    Target {
                        expr: self.expr((*t).expr.cast()),
                        reference: (*t).ressortgroupref,
                        shown: !(*t).resjunk,
                    }
                })
                .collect();
            let windows = list::<pg_sys::WindowClause>(q.windowClause);
            for w in &windows {
                others.extend(self.optional((**w).startOffset));
                others.extend(self.optional((**w).endOffset));
            }
            let order_by = self.sorting(q.sortClause);
            others.extend(self.optional(q.havingQual));
            others.extend(self.optional(q.limitOffset));
            others.extend(self.optional(q.limitCount));
            let filter = self.optional((*q.jointree).quals);
            let limit = limit(q);
            // Rows that a subquery has sorted stay so in practice.
            let sorted = relations
                .iter()
                .any(|r| matches!(r, Relation::Subquery(s) if !s.order_by.is_empty()));
            self.uses.unordered.extend(self.aggregate.take().filter(|_| !sorted));
            self.aggregate = outer;
            if q.sortClause.is_null() && limit != Limit::None {
                self.uses.unordered.insert("LIMIT".into());
            }
            if q.sortClause.is_null() && q.hasDistinctOn {
                self.uses.unordered.insert("DISTINCT ON".into());
            }
            let numbers = std::mem::replace(&mut self.numbers, outer_numbers);
            let mut numbered = vec![];
            for w in &windows {
                let mut by = self.sorting((**w).partitionClause);
                by.extend(self.sorting((**w).orderClause));
                if numbers.contains(&(**w).winref) {
                    numbered.push(by);
                }
            }
            Query {
                relations,
                with,
                from,
                filter,
                targets,
                others,
                aggregates: q.hasAggs,
                group_by: self.grouping(q.groupClause, q.targetList),
                distinct: self.grouping(q.distinctClause, q.targetList),
                distinct_on: q.hasDistinctOn,
                windows: windows
                    .into_iter()
                    .map(|w| self.grouping((*w).partitionClause, q.targetList))
                    .collect(),
                numbered,
                limit,
                order_by,
                arms,
                union_by,
                unsupported,
            }
        }
    }

    unsafe fn relation(&mut self, r: *mut pg_sys::RangeTblEntry) -> Relation {
        // SAFETY: see above.
        unsafe {
            let r = &*r;
            self.uses.entries += 1;
            self.uses.relations += usize::from(r.rtekind == pg_sys::RTEKind::RTE_RELATION);
            let beyond = if self.uses.relations > bounds::TABLES {
                Some(bounds::MANY_TABLES)
            } else if self.uses.entries > bounds::QUERIES {
                Some(bounds::MANY_QUERIES)
            } else {
                self.uses.beyond
            };
            if let Some(what) = beyond {
                return Relation::Unsupported { what };
            }
            match r.rtekind {
                // A view's rule carries entries for OLD and NEW, the view itself.
                pg_sys::RTEKind::RTE_RELATION if r.relid == self.view => Relation::Empty,
                pg_sys::RTEKind::RTE_RELATION if !r.tablesample.is_null() => {
                    Relation::Unsupported { what: "TABLESAMPLE" }
                }
                pg_sys::RTEKind::RTE_RELATION => match read_view(r.relid, self.uses) {
                    Some(query) => Relation::Subquery(Box::new(query)),
                    None => {
                        Relation::Table { oid: r.relid.to_u32(), alias: text((*r.eref).aliasname) }
                    }
                },
                pg_sys::RTEKind::RTE_SUBQUERY => {
                    Relation::Subquery(Box::new(self.query(r.subquery)))
                }
                pg_sys::RTEKind::RTE_CTE => {
                    Relation::With { name: text(r.ctename), up: r.ctelevelsup as usize }
                }
                pg_sys::RTEKind::RTE_JOIN => {
                    // Only looked at where something refers to the join's own columns: what they
                    // call is counted there too. Whoever uses one has a value of its type.
                    let unfollowed = self.uses.unfollowed;
                    let join = Relation::Join(
                        list::<pg_sys::Node>(r.joinaliasvars)
                            .into_iter()
                            .map(|n| {
                                if n.is_null() {
                                    return Expr::Other(vec![]);
                                }
                                self.uses.fields.insert(pg_sys::exprType(n).to_u32());
                                self.expr(n)
                            })
                            .collect(),
                    );
                    self.uses.unfollowed = unfollowed;
                    join
                }
                pg_sys::RTEKind::RTE_VALUES => Relation::Values(
                    list::<pg_sys::List>(r.values_lists)
                        .into_iter()
                        .map(|row| self.exprs(row))
                        .collect(),
                ),
                pg_sys::RTEKind::RTE_RESULT => Relation::Empty,
                pg_sys::RTEKind::RTE_FUNCTION | pg_sys::RTEKind::RTE_TABLEFUNC => {
                    Relation::Unsupported { what: "a function in FROM" }
                }
                _ => Relation::Unsupported { what: "a kind of relation that is not known" },
            }
        }
    }

    unsafe fn node(&mut self, n: *mut pg_sys::Node) -> Node {
        // SAFETY: see above. FROM consists of range table references and joins.
        unsafe {
            pause();
            if (*n).type_ == NodeTag::T_RangeTblRef {
                return Node::Relation((*n.cast::<pg_sys::RangeTblRef>()).rtindex as usize - 1);
            }
            let j = &*n.cast::<pg_sys::JoinExpr>();
            let kind = match j.jointype {
                pg_sys::JoinType::JOIN_INNER => JoinKind::Inner,
                pg_sys::JoinType::JOIN_LEFT => JoinKind::Left,
                pg_sys::JoinType::JOIN_RIGHT => JoinKind::Right,
                _ => JoinKind::Full,
            };
            Node::Join {
                kind,
                sides: Box::new([self.node(j.larg), self.node(j.rarg)]),
                on: self.optional(j.quals),
            }
        }
    }

    unsafe fn optional(&mut self, n: *mut pg_sys::Node) -> Option<Expr> {
        // SAFETY: see above.
        (!n.is_null()).then(|| unsafe { self.expr(n) })
    }

    unsafe fn exprs(&mut self, nodes: *mut pg_sys::List) -> Vec<Expr> {
        // SAFETY: see above.
        unsafe {
            list::<pg_sys::Node>(nodes)
                .into_iter()
                .filter(|n| !n.is_null())
                .map(|n| self.expr(n))
                .collect()
        }
    }

    /// The targets that a list of SortGroupClause refers to; their operators are used.
    unsafe fn sorting(&mut self, clauses: *mut pg_sys::List) -> Vec<u32> {
        // SAFETY: see above.
        unsafe {
            list::<pg_sys::SortGroupClause>(clauses).into_iter().map(|c| self.sorted(&*c)).collect()
        }
    }

    /// The same with the equality that each goes by.
    unsafe fn grouping(
        &mut self,
        clauses: *mut pg_sys::List,
        targets: *mut pg_sys::List,
    ) -> Vec<Group> {
        // SAFETY: see above.
        unsafe {
            let collations: Vec<(u32, Oid)> = list::<pg_sys::TargetEntry>(targets)
                .into_iter()
                .map(|t| ((*t).ressortgroupref, pg_sys::exprCollation((*t).expr.cast())))
                .collect();
            let group = |c: *mut pg_sys::SortGroupClause| {
                let reference = self.sorted(&*c);
                let collation = collations.iter().find(|t| t.0 == reference);
                Group {
                    reference,
                    by: (
                        (*c).eqop.to_u32(),
                        collation.map_or(0, |(_, collation)| collation.to_u32()),
                    ),
                }
            };
            list(clauses).into_iter().map(group).collect()
        }
    }

    /// The target that one refers to; its operators are used.
    fn sorted(&mut self, c: &pg_sys::SortGroupClause) -> u32 {
        let operators = [c.eqop, c.sortop].into_iter().filter(|o| *o != Oid::INVALID);
        self.uses.operators.extend(operators.map(|o| o.to_u32()));
        c.tleSortGroupRef
    }

    unsafe fn expr(&mut self, n: *mut pg_sys::Node) -> Expr {
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
                NodeTag::T_Const => {
                    let c = &*n.cast::<pg_sys::Const>();
                    let value = Value { datum: c.constvalue, oid: c.consttype };
                    Expr::Constant {
                        r#type: c.consttype.to_u32(),
                        text: (!c.constisnull).then(|| value.to_text()),
                    }
                }
                // No other value; but a grouping or a window goes by the collation.
                NodeTag::T_CollateExpr => {
                    let c = &*n.cast::<pg_sys::CollateExpr>();
                    let below: *mut pg_sys::Node = c.arg.cast();
                    let expr = self.expr(below);
                    if collates_alike(n, below) { expr } else { Expr::Other(vec![expr]) }
                }
                _ if let Some(same) = uncast(n) => self.expr(same),
                NodeTag::T_BoolExpr => {
                    let b = &*n.cast::<pg_sys::BoolExpr>();
                    let parts = self.exprs(b.args);
                    if b.boolop == pg_sys::BoolExprType::AND_EXPR {
                        Expr::And(parts)
                    } else {
                        Expr::Other(parts)
                    }
                }
                NodeTag::T_OpExpr => {
                    let o = &*n.cast::<pg_sys::OpExpr>();
                    self.operator(o.opno, o.inputcollid, arguments(o.args))
                }
                NodeTag::T_ScalarArrayOpExpr if (*n.cast::<pg_sys::ScalarArrayOpExpr>()).useOr => {
                    let o = &*n.cast::<pg_sys::ScalarArrayOpExpr>();
                    let args = arguments(o.args);
                    match args[..] {
                        [left, right] => match elements(right) {
                            Some(right) => {
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
                            None => Expr::Other(vec![self.expr(left), self.expr(right)]),
                        },
                        _ => Expr::Other(self.exprs(o.args)),
                    }
                }
                NodeTag::T_CoalesceExpr => Expr::Either {
                    results: self.exprs((*n.cast::<pg_sys::CoalesceExpr>()).args),
                    beside: vec![],
                },
                NodeTag::T_CaseExpr => {
                    let c = &*n.cast::<pg_sys::CaseExpr>();
                    let mut beside: Vec<Expr> = self.optional(c.arg.cast()).into_iter().collect();
                    let mut results = vec![];
                    for w in list::<pg_sys::CaseWhen>(c.args) {
                        beside.extend(self.optional((*w).expr.cast()));
                        results.extend(self.optional((*w).result.cast()));
                    }
                    results.extend(self.optional(c.defresult.cast()));
                    Expr::Either { results, beside }
                }
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
                    any: None,
                    beside: vec![],
                },
                tag => {
                    let parts = children(n).into_iter().map(|n| self.expr(n)).collect();
                    let computed =
                        [NodeTag::T_Aggref, NodeTag::T_WindowFunc, NodeTag::T_GroupingFunc];
                    if computed.contains(&tag) { Expr::Computed(parts) } else { Expr::Other(parts) }
                }
            }
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

    unsafe fn sublink(&mut self, s: &pg_sys::SubLink) -> Expr {
        // SAFETY: see above.
        unsafe {
            let query = Box::new(self.query(s.subselect.cast()));
            let test = s.testexpr;
            // x = ANY (SELECT y): an operator on x and the parameter that stands for y.
            if s.subLinkType == pg_sys::SubLinkType::ANY_SUBLINK
                && !test.is_null()
                && (*test).type_ == NodeTag::T_OpExpr
            {
                self.functions(test);
                let o = &*test.cast::<pg_sys::OpExpr>();
                if let [left, right] = arguments(o.args)[..]
                    && (*stripped(right)).type_ == NodeTag::T_Param
                {
                    self.functions(right);
                    let any = Any {
                        operator: o.opno.to_u32(),
                        collation: o.inputcollid.to_u32(),
                        left: self.expr(left),
                    };
                    return Expr::Query {
                        query,
                        value: false,
                        any: Some(Box::new(any)),
                        beside: vec![],
                    };
                }
            }
            Expr::Query {
                query,
                value: s.subLinkType == pg_sys::SubLinkType::EXPR_SUBLINK,
                any: None,
                beside: self.optional(test).into_iter().collect(),
            }
        }
    }

    /// Notes a value that names a text search object, unless it is a constant, or one that was passed on.
    unsafe fn named(&mut self, n: *mut pg_sys::Node) {
        // SAFETY: see above; these nodes are expressions, which have a type.
        unsafe {
            let made = match (*n).type_ {
                NodeTag::T_Var
                | NodeTag::T_FuncExpr
                | NodeTag::T_OpExpr
                | NodeTag::T_Aggref
                | NodeTag::T_WindowFunc
                | NodeTag::T_CoerceViaIO
                | NodeTag::T_RelabelType
                | NodeTag::T_FieldSelect
                | NodeTag::T_SubscriptingRef => pg_sys::getBaseType(pg_sys::exprType(n)),
                _ => return,
            };
            match made {
                pg_sys::REGCONFIGOID => self.uses.unfollowed = Some("regconfig"),
                pg_sys::REGDICTIONARYOID => self.uses.unfollowed = Some("regdictionary"),
                _ => {}
            }
        }
    }

    /// The functions that the node itself calls, and the types that it prints.
    unsafe fn functions(&mut self, n: *mut pg_sys::Node) {
        #[pg_guard]
        unsafe extern "C-unwind" fn note(function: Oid, found: *mut c_void) -> bool {
            // SAFETY: the vector below.
            unsafe { (*found.cast::<Vec<Oid>>()).push(function) };
            false
        }
        // SAFETY: see above; `found` outlives the call.
        unsafe {
            self.named(n);
            let mut found: Vec<Oid> = vec![];
            pg_sys::check_functions_in_node(n, Some(note), (&raw mut found).cast());
            self.uses.functions.extend(found.iter().map(|f| f.to_u32()));
            if (*n).type_ == NodeTag::T_Aggref {
                let a = &*n.cast::<pg_sys::Aggref>();
                let name = text(pg_sys::get_func_name(a.aggfnoid));
                // Sums of floats are rounded, in whatever order they are added up.
                let types = PgList::<c_void>::from_pg(a.aggargtypes);
                let float =
                    types.iter_oid().any(|t| t == pg_sys::FLOAT4OID || t == pg_sys::FLOAT8OID)
                        && !["min", "max", "count"].contains(&&*name);
                if a.aggorder.is_null() && (float || ORDERED.contains(&&*name)) {
                    self.aggregate = Some(name);
                }
            }
            if (*n).type_ == NodeTag::T_WindowFunc {
                let w = &*n.cast::<pg_sys::WindowFunc>();
                if text(pg_sys::get_func_name(w.winfnoid)) == "row_number" {
                    self.numbers.push(w.winref);
                }
            }
            let mut printed: Vec<Oid> = vec![];
            match (*n).type_ {
                NodeTag::T_CoerceViaIO => {
                    printed.push(pg_sys::exprType((*n.cast::<pg_sys::CoerceViaIO>()).arg.cast()));
                }
                NodeTag::T_XmlExpr => {
                    printed.extend(children(n).into_iter().map(|c| pg_sys::exprType(c)));
                }
                NodeTag::T_RowExpr => {
                    let fields = children(n).into_iter().map(|c| pg_sys::exprType(c).to_u32());
                    self.uses.fields.extend(fields);
                }
                NodeTag::T_Aggref if found.iter().any(|f| polymorphic(*f)) => {
                    let types =
                        PgList::<c_void>::from_pg((*n.cast::<pg_sys::Aggref>()).aggargtypes);
                    printed.extend(types.iter_oid());
                }
                NodeTag::T_FuncExpr | NodeTag::T_OpExpr | NodeTag::T_WindowFunc
                    if found.iter().any(|f| polymorphic(*f)) =>
                {
                    printed.extend(children(n).into_iter().map(|c| pg_sys::exprType(c)));
                }
                _ => {}
            }
            self.uses.printed.extend(printed.iter().map(|t| t.to_u32()));
        }
    }
}

/// Aggregates whose result depends on the order of the rows.
const ORDERED: [&str; 6] =
    ["array_agg", "json_agg", "json_object_agg", "jsonb_agg", "string_agg", "xmlagg"];

/// Expressions of a List.
///
/// # Safety
/// As for [`list`].
unsafe fn arguments(args: *mut pg_sys::List) -> Vec<*mut pg_sys::Node> {
    // SAFETY: as said.
    unsafe { list(args) }
}

/// What is below a cast that keeps the value, equal and different as it was: to or from a domain,
/// between text and varchar, to a wider integer or numeric. A foreign key compares its columns by
/// such casts too. One with a length may shorten the value, one to a domain bring another collation.
unsafe fn uncast(n: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
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
unsafe fn collates_alike(n: *mut pg_sys::Node, below: *mut pg_sys::Node) -> bool {
    // SAFETY: both are expressions; what they collate by exists.
    unsafe {
        let collations = [pg_sys::exprCollation(n), pg_sys::exprCollation(below)];
        let plain = |oid: &Oid| *oid == Oid::INVALID || pg_sys::get_collation_isdeterministic(*oid);
        collations[0] == collations[1] || collations.iter().all(plain)
    }
}

/// The node below mere relabelling.
unsafe fn stripped(n: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: `n` is an expression.
    unsafe {
        if (*n).type_ == NodeTag::T_RelabelType {
            stripped((*n.cast::<pg_sys::RelabelType>()).arg.cast())
        } else {
            n
        }
    }
}

/// Adds the relations under a tree of UNIONs, and the equalities by which it compares its columns; false
/// where it is another operation.
unsafe fn union(
    n: *mut pg_sys::Node,
    arms: &mut Vec<usize>,
    union_by: &mut Vec<(i16, By)>,
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
        s.op == pg_sys::SetOperation::SETOP_UNION
            && union(s.larg, arms, union_by)
            && union(s.rarg, arms, union_by)
    }
}

unsafe fn limit(q: &pg_sys::Query) -> Limit {
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

enum Element {
    Node(*mut pg_sys::Node),
    Constant(Expr),
}

/// The elements of an array that is written out.
unsafe fn elements(n: *mut pg_sys::Node) -> Option<Vec<Element>> {
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

/// The expressions directly below a node.
unsafe fn children(n: *mut pg_sys::Node) -> Vec<*mut pg_sys::Node> {
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

/// Whether a function takes values of any type.
fn polymorphic(function: Oid) -> bool {
    const ANY: [Oid; 13] = [
        pg_sys::ANYOID,
        pg_sys::ANYELEMENTOID,
        pg_sys::ANYARRAYOID,
        pg_sys::ANYNONARRAYOID,
        pg_sys::ANYENUMOID,
        pg_sys::ANYRANGEOID,
        pg_sys::ANYMULTIRANGEOID,
        pg_sys::ANYCOMPATIBLEOID,
        pg_sys::ANYCOMPATIBLEARRAYOID,
        pg_sys::ANYCOMPATIBLENONARRAYOID,
        pg_sys::ANYCOMPATIBLERANGEOID,
        pg_sys::RECORDOID,
        pg_sys::RECORDARRAYOID,
    ];
    let (mut types, mut n) = (std::ptr::null_mut(), 0);
    // SAFETY: a cache look-up that fills in a palloc'd array of `n` types.
    unsafe {
        pg_sys::get_func_signature(function, &mut types, &mut n);
        (0..n as usize).any(|i| ANY.contains(&*types.add(i)))
    }
}

fn sql_value(op: pg_sys::SQLValueFunctionOp::Type) -> &'static str {
    use pg_sys::SQLValueFunctionOp as Op;
    match op {
        Op::SVFOP_CURRENT_DATE => "CURRENT_DATE",
        Op::SVFOP_CURRENT_TIME | Op::SVFOP_CURRENT_TIME_N => "CURRENT_TIME",
        Op::SVFOP_CURRENT_TIMESTAMP | Op::SVFOP_CURRENT_TIMESTAMP_N => "CURRENT_TIMESTAMP",
        Op::SVFOP_LOCALTIME | Op::SVFOP_LOCALTIME_N => "LOCALTIME",
        Op::SVFOP_LOCALTIMESTAMP | Op::SVFOP_LOCALTIMESTAMP_N => "LOCALTIMESTAMP",
        Op::SVFOP_CURRENT_ROLE => "CURRENT_ROLE",
        Op::SVFOP_CURRENT_USER => "CURRENT_USER",
        Op::SVFOP_SESSION_USER => "SESSION_USER",
        Op::SVFOP_CURRENT_CATALOG => "CURRENT_CATALOG",
        Op::SVFOP_CURRENT_SCHEMA => "CURRENT_SCHEMA",
        _ => "USER",
    }
}
