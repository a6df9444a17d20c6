//! Reads a query of the server's parse tree: its range table, FROM, WITH, SELECT list and what it does with rows.
//!
//! Invariant: every list and every expression of a Query is either in what is made of it, or the query is
//! marked as unsupported.

use super::nodes::{limit, list, text, union};
use super::{Uses, pause, read_view};
use crate::query_tree::{
    Expr, Function, Group, JoinKind, Limit, Node, Query, Relation, Sorted, Target, With, bounds,
};
use pgrx::pg_sys::{self, NodeTag, Oid};
use std::ffi::c_void;

/// Reads a view, or an expression of the catalogs, and notes what it uses.
pub(super) struct Reader<'a> {
    pub(super) uses: &'a mut Uses,
    pub(super) view: Oid,
    /// An aggregate without ORDER BY whose result depends on the order, in the query being read.
    pub(super) aggregate: Option<String>,
    /// The windows of row_number(), in the query being read.
    pub(super) numbers: Vec<u32>,
    /// How aggregates of the query being read sort their rows.
    pub(super) sorted: Vec<Sorted>,
}

// SAFETY (of every unsafe block below): `get_view_query` returns a valid parse tree; a node's tag says
// its struct, each field is of the type that parsenodes.h and primnodes.h give, and nothing is kept.
impl<'a> Reader<'a> {
    /// With nothing read yet.
    pub(super) fn new(uses: &'a mut Uses, view: Oid) -> Reader<'a> {
        Reader { uses, view, aggregate: None, numbers: vec![], sorted: vec![] }
    }

    pub(super) unsafe fn query(&mut self, q: *mut pg_sys::Query) -> Query {
        // SAFETY: see above.
        unsafe {
            pause();
            let q = &grouped(q);
            // These are of one query: that around it goes on with its own.
            let around = (
                self.aggregate.take(),
                std::mem::take(&mut self.numbers),
                std::mem::take(&mut self.sorted),
            );
            let (mut arms, mut union_by) = (vec![], vec![]);
            let union =
                q.setOperations.is_null() || union(q.setOperations, &mut arms, &mut union_by);
            let relations: Vec<Relation> = list::<pg_sys::RangeTblEntry>(q.rtable)
                .into_iter()
                .map(|r| self.relation(r))
                .collect();
            let with = self.with(q.cteList);
            let from = list::<pg_sys::Node>((*q.jointree).fromlist)
                .into_iter()
                .map(|n| self.node(n))
                .collect();
            let targets = self.targets(q.targetList);
            let windows = list::<pg_sys::WindowClause>(q.windowClause);
            let others = self.others(q, &windows);
            let order_by = self.sorting(q.sortClause);
            let filter = self.optional((*q.jointree).quals);
            let limit = limit(q);
            self.unordered(q, &relations, limit);
            let numbered = self.numbered(&windows);
            let numbers = self.row_numbers(q, &windows);
            let sorted = std::mem::take(&mut self.sorted);
            (self.aggregate, self.numbers, self.sorted) = around;
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
                sets: q.hasTargetSRFs,
                numbered,
                numbers,
                sorted,
                limit,
                order_by,
                arms,
                union_by,
                intersects: !union,
                unsupported: unsupported(q),
            }
        }
    }

    unsafe fn with(&mut self, queries: *mut pg_sys::List) -> Vec<With> {
        // SAFETY: see above.
        unsafe {
            list::<pg_sys::CommonTableExpr>(queries)
                .into_iter()
                .map(|c| With {
                    name: text((*c).ctename),
                    query: self.query((*c).ctequery.cast()),
                    recursive: (*c).cterecursive,
                })
                .collect()
        }
    }

    unsafe fn targets(&mut self, targets: *mut pg_sys::List) -> Vec<Target> {
        // SAFETY: see above.
        unsafe {
            list::<pg_sys::TargetEntry>(targets)
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
                .collect()
        }
    }

    /// Window frames, HAVING and LIMIT.
    unsafe fn others(
        &mut self,
        q: &pg_sys::Query,
        windows: &[*mut pg_sys::WindowClause],
    ) -> Vec<Expr> {
        // SAFETY: see above.
        unsafe {
            let mut others = vec![];
            for w in windows {
                others.extend(self.optional((**w).startOffset));
                others.extend(self.optional((**w).endOffset));
            }
            others.extend(self.optional(q.havingQual));
            others.extend(self.optional(q.limitOffset));
            others.extend(self.optional(q.limitCount));
            others
        }
    }

    /// Notes what depends on an order of this query's rows that it leaves open.
    fn unordered(&mut self, q: &pg_sys::Query, relations: &[Relation], limit: Limit) {
        // Rows that a subquery has sorted stay so in practice.
        let sorted =
            relations.iter().any(|r| matches!(r, Relation::Subquery(s) if !s.order_by.is_empty()));
        // So do those of a function, where nothing is joined to them.
        let mut rows =
            relations.iter().filter(|r| !matches!(r, Relation::Join(_) | Relation::Empty));
        let alone = matches!((rows.next(), rows.next()), (Some(Relation::Function(_)), None))
            && q.groupClause.is_null();
        self.uses.unordered.extend(self.aggregate.take().filter(|_| !sorted && !alone));
        if q.sortClause.is_null() && limit != Limit::None && !alone {
            self.uses.unordered.insert("LIMIT".into());
        }
        if q.sortClause.is_null() && q.hasDistinctOn {
            self.uses.unordered.insert("DISTINCT ON".into());
        }
    }

    /// By what each row_number() of this query counts.
    unsafe fn numbered(&mut self, windows: &[*mut pg_sys::WindowClause]) -> Vec<Vec<u32>> {
        let mut numbered = vec![];
        for w in windows {
            // SAFETY: see above.
            unsafe {
                let mut by = self.sorting((**w).partitionClause);
                by.extend(self.sorting((**w).orderClause));
                if self.numbers.contains(&(**w).winref) {
                    numbered.push(by);
                }
            }
        }
        numbered
    }

    /// The output columns that are one, with what it is partitioned by.
    unsafe fn row_numbers(
        &mut self,
        q: &pg_sys::Query,
        windows: &[*mut pg_sys::WindowClause],
    ) -> Vec<(i16, Vec<u32>)> {
        let mut found = vec![];
        // SAFETY: see above.
        unsafe {
            for t in list::<pg_sys::TargetEntry>(q.targetList) {
                let n: *mut pg_sys::Node = (*t).expr.cast();
                if (*n).type_ != NodeTag::T_WindowFunc {
                    continue;
                }
                let f = &*n.cast::<pg_sys::WindowFunc>();
                let of = windows.iter().find(|w| (***w).winref == f.winref);
                if let Some(w) = of.filter(|_| f.winfnoid == pg_sys::F_ROW_NUMBER.into()) {
                    found.push(((*t).resno, self.sorting((**w).partitionClause)));
                }
            }
        }
        found
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
                pg_sys::RTEKind::RTE_JOIN => self.join(r),
                pg_sys::RTEKind::RTE_VALUES => Relation::Values(
                    list::<pg_sys::List>(r.values_lists)
                        .into_iter()
                        .map(|row| self.exprs(row))
                        .collect(),
                ),
                pg_sys::RTEKind::RTE_FUNCTION => self.functions_in_from(r),
                #[cfg(not(any(feature = "pg15", feature = "pg16")))]
                pg_sys::RTEKind::RTE_TABLEFUNC
                    if (*r.tablefunc).functype == pg_sys::TableFuncType::TFT_JSON_TABLE =>
                {
                    Relation::Function(Function {
                        calls: vec![self.expr(r.tablefunc.cast())],
                        set: true,
                        ordinality: None,
                    })
                }
                pg_sys::RTEKind::RTE_TABLEFUNC => Relation::Unsupported { what: "XMLTABLE" },
                pg_sys::RTEKind::RTE_RESULT => Relation::Empty,
                // Nothing refers to it any more, see `grouped`.
                #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
                pg_sys::RTEKind::RTE_GROUP => Relation::Empty,
                _ => Relation::Unsupported { what: "a kind of relation that is not known" },
            }
        }
    }

    /// `f(…)` or `ROWS FROM (f(…), …)`.
    unsafe fn functions_in_from(&mut self, r: &pg_sys::RangeTblEntry) -> Relation {
        // SAFETY: see above. The ordinality's column is the last.
        unsafe {
            let columns = list::<c_void>((*r.eref).colnames).len();
            let ordinality = r.funcordinality.then_some(columns);
            let calls = list::<pg_sys::RangeTblFunction>(r.functions);
            let set = calls.iter().any(|f| pg_sys::expression_returns_set((**f).funcexpr));
            Relation::Function(Function {
                calls: calls.into_iter().map(|f| self.expr(f.cast())).collect(),
                set,
                ordinality: ordinality.and_then(|n| i16::try_from(n).ok()),
            })
        }
    }

    /// Only looked at where something refers to the join's own columns: what they call is counted there
    /// too. Whoever uses one has a value of its type.
    unsafe fn join(&mut self, r: &pg_sys::RangeTblEntry) -> Relation {
        // SAFETY: see above.
        unsafe {
            let unfollowed = self.uses.unfollowed;
            let column = |n: *mut pg_sys::Node| {
                if n.is_null() {
                    return Expr::Other(vec![]);
                }
                self.uses.fields.insert(pg_sys::exprType(n).to_u32());
                self.expr(n)
            };
            let columns = list(r.joinaliasvars).into_iter().map(column).collect();
            self.uses.unfollowed = unfollowed;
            Relation::Join(columns)
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
            let group = |c: *mut pg_sys::SortGroupClause| {
                let reference = self.sorted(&*c);
                // An error where there is none.
                let target = pg_sys::get_sortgroupref_tle(reference, targets);
                let collation = pg_sys::exprCollation((*target).expr.cast());
                Group { reference, by: ((*c).eqop.to_u32(), collation.to_u32()) }
            };
            list(clauses).into_iter().map(group).collect()
        }
    }

    /// The target that one refers to; its operators are used.
    pub(super) fn sorted(&mut self, c: &pg_sys::SortGroupClause) -> u32 {
        let operators = [c.eqop, c.sortop].into_iter().filter(|o| *o != Oid::INVALID);
        self.uses.operators.extend(operators.map(|o| o.to_u32()));
        c.tleSortGroupRef
    }
}

/// The query as PostgreSQL up to 17 has it: with the expressions of GROUP BY wherever SELECT and HAVING use
/// them. From 18 on, columns of an entry of the range table stand for them.
unsafe fn grouped(q: *mut pg_sys::Query) -> pg_sys::Query {
    // SAFETY: a query; what is new in its copy is a copy too.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
        return *q;
        #[cfg(not(any(feature = "pg15", feature = "pg16", feature = "pg17")))]
        {
            let mut copy = *q;
            if copy.hasGroupRTE {
                // As ruleutils.c does, which prints the query.
                let flat = |n| pg_sys::flatten_group_exprs(std::ptr::null_mut(), q, n);
                copy.targetList = flat(copy.targetList.cast()).cast();
                copy.havingQual = flat(copy.havingQual);
            }
            copy
        }
    }
}

/// What a query does, by its own clauses, that is refused.
fn unsupported(q: &pg_sys::Query) -> Option<&'static str> {
    if !q.groupingSets.is_null() {
        Some("GROUPING SETS, ROLLUP or CUBE")
    } else if !q.rowMarks.is_null() {
        Some("FOR UPDATE or FOR SHARE")
    } else {
        None
    }
}
