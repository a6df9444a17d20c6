//! Notes what each node of a parse tree calls and prints.
//!
//! Invariant: whatever a node may run is noted, though some of it may never run.

use super::nodes::{children, text};
use super::reader::Reader;
use crate::query_tree::{Expr, Sorted};
use pgrx::pg_sys::{self, NodeTag, Oid};
use pgrx::{PgList, PgTupleDesc, pg_guard};
use std::ffi::c_void;

// SAFETY (of every unsafe block below): `get_view_query` returns a valid parse tree; a node's tag says
// its struct, each field is of the type that parsenodes.h and primnodes.h give, and nothing is kept.
impl Reader<'_> {
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

    /// A value that is taken out of JSON: what makes one of its type is in no node; where that is not built in,
    /// nor in pg_depend.
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    unsafe fn read_from_json(&mut self, r#type: Oid) {
        let (mut input, mut of) = (Oid::INVALID, Oid::INVALID);
        // SAFETY: a cache look-up of a type that exists.
        unsafe { pg_sys::getTypeInputInfo(r#type, &mut input, &mut of) };
        self.uses.functions.insert(input.to_u32());
        if r#type.to_u32() >= pg_sys::FirstNormalObjectId {
            self.uses.beyond =
                Some("JSON_VALUE, JSON_QUERY or JSON_TABLE of a type that is not built in");
        }
    }

    /// Notes what a call may return of which no other node tells: the fields of a row, and the types of which
    /// it makes values out of texts, by their input functions. `calls`: the functions that the node calls.
    unsafe fn made(&mut self, n: *mut pg_sys::Node, calls: &[Oid]) {
        // SAFETY: see above; the lists of types are lists of OIDs.
        unsafe {
            match (*n).type_ {
                NodeTag::T_FuncExpr | NodeTag::T_OpExpr => {
                    self.uses.fields.extend(fields(n));
                    if calls.iter().any(|f| POPULATE.contains(&f.to_u32())) {
                        self.uses.made.insert(pg_sys::exprType(n).to_u32());
                    }
                }
                NodeTag::T_RangeTblFunction => {
                    let f = &*n.cast::<pg_sys::RangeTblFunction>();
                    self.uses.fields.insert(pg_sys::exprType(f.funcexpr).to_u32());
                    self.columns_made(f.funccoltypes);
                }
                NodeTag::T_TableFunc => {
                    self.columns_made((*n.cast::<pg_sys::TableFunc>()).coltypes);
                }
                _ => {}
            }
        }
    }

    unsafe fn columns_made(&mut self, types: *mut pg_sys::List) {
        // SAFETY: a list of OIDs.
        let types = unsafe { PgList::<c_void>::from_pg(types) };
        let types: Vec<u32> = types.iter_oid().map(|t| t.to_u32()).collect();
        self.uses.fields.extend(&types);
        self.uses.made.extend(types);
    }

    /// Notes in which order an aggregate of this query takes its rows, where that shows. `parts` are what it
    /// consists of, its arguments first.
    pub(super) unsafe fn sorted_rows(&mut self, n: *mut pg_sys::Node, parts: &[Expr]) {
        // SAFETY: see above; an aggregate's arguments are target entries.
        unsafe {
            if (*n).type_ != NodeTag::T_Aggref {
                return;
            }
            let a = &*n.cast::<pg_sys::Aggref>();
            let name = text(pg_sys::get_func_name(a.aggfnoid));
            let own = a.agglevelsup == 0 && a.aggdirectargs.is_null();
            if !own || a.aggorder.is_null() || !ORDERED.contains(&&*name) {
                return;
            }
            let sorts = PgList::<pg_sys::SortGroupClause>::from_pg(a.aggorder);
            let sorts: Vec<u32> = sorts.iter_ptr().map(|s| (*s).tleSortGroupRef).collect();
            let args = PgList::<pg_sys::TargetEntry>::from_pg(a.args);
            let mut sorted = Sorted::default();
            for (arg, expr) in args.iter_ptr().zip(parts) {
                if sorts.contains(&(*arg).ressortgroupref) {
                    sorted.by.extend(matches!(expr, Expr::Column { .. }).then(|| expr.clone()));
                }
                if !(*arg).resjunk {
                    sorted.shows(expr);
                }
            }
            self.sorted.push(sorted);
        }
    }

    /// The functions that the node itself calls, and the types that it prints.
    pub(super) unsafe fn functions(&mut self, n: *mut pg_sys::Node) {
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
                let sorted = !a.aggorder.is_null() || sorted_distinct(a);
                if !sorted && (float || ORDERED.contains(&&*name)) {
                    self.aggregate = Some(name);
                }
            }
            if (*n).type_ == NodeTag::T_WindowFunc {
                let w = &*n.cast::<pg_sys::WindowFunc>();
                if text(pg_sys::get_func_name(w.winfnoid)) == "row_number" {
                    self.numbers.push(w.winref);
                }
            }
            self.made(n, &found);
            let mut printed = renumbered(n, &found);
            match (*n).type_ {
                NodeTag::T_CoerceViaIO => {
                    printed.push(pg_sys::exprType((*n.cast::<pg_sys::CoerceViaIO>()).arg.cast()));
                }
                NodeTag::T_XmlExpr => {
                    printed.extend(children(n).into_iter().map(|c| pg_sys::exprType(c)));
                }
                // As to_json() prints them.
                #[cfg(not(feature = "pg15"))]
                NodeTag::T_JsonConstructorExpr => {
                    printed.extend(children(n).into_iter().map(|c| pg_sys::exprType(c)));
                }
                #[cfg(not(any(feature = "pg15", feature = "pg16")))]
                NodeTag::T_JsonExpr => {
                    printed.extend(children(n).into_iter().map(|c| pg_sys::exprType(c)));
                    self.read_from_json(pg_sys::exprType(n));
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

/// Whether an aggregate is DISTINCT over values that are the same where they are equal: its executor sorts them then
/// (nodeAgg.h: it passes the input into a tuplesort), and there is one order. Of 1.0 and 1.00 either might be left.
unsafe fn sorted_distinct(a: &pg_sys::Aggref) -> bool {
    const ALIKE: [Oid; 11] = [
        pg_sys::BOOLOID,
        pg_sys::INT2OID,
        pg_sys::INT4OID,
        pg_sys::INT8OID,
        pg_sys::TEXTOID,
        pg_sys::VARCHAROID,
        pg_sys::UUIDOID,
        pg_sys::DATEOID,
        pg_sys::TIMESTAMPOID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::NAMEOID,
    ];
    // SAFETY: see above; arguments are target entries, whose expressions have a type and a collation.
    unsafe {
        let args = PgList::<pg_sys::TargetEntry>::from_pg(a.args);
        let alike = |entry: *mut pg_sys::TargetEntry| {
            let value = (*entry).expr.cast();
            let r#type = pg_sys::getBaseType(pg_sys::exprType(value));
            let collation = pg_sys::exprCollation(value);
            (ALIKE.contains(&r#type) || pg_sys::type_is_enum(r#type))
                && (collation == Oid::INVALID || pg_sys::get_collation_isdeterministic(collation))
        };
        !a.aggdistinct.is_null() && args.iter_ptr().all(alike)
    }
}

/// Aggregates whose result depends on the order of the rows; from `any_value` on, PostgreSQL 16 has brought them.
const ORDERED: [&str; 12] = [
    "array_agg",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "string_agg",
    "xmlagg",
    "any_value",
    "json_agg_strict",
    "jsonb_agg_strict",
    "json_object_agg_strict",
    "json_object_agg_unique",
    "json_object_agg_unique_strict",
];

/// They make values of whatever type they are told, by its input function.
const POPULATE: [u32; 4] = [
    pg_sys::F_JSON_POPULATE_RECORD,
    pg_sys::F_JSON_POPULATE_RECORDSET,
    pg_sys::F_JSONB_POPULATE_RECORD,
    pg_sys::F_JSONB_POPULATE_RECORDSET,
];

/// The types of the columns of what a call returns, where that is a row and the call says of which.
unsafe fn fields(call: *mut pg_sys::Node) -> Vec<u32> {
    let (mut result, mut columns) = (Oid::INVALID, std::ptr::null_mut());
    // SAFETY: `call` is an expression; the columns of a row are told in a copy of its description.
    unsafe {
        pg_sys::get_expr_result_type(call, &mut result, &mut columns);
        if columns.is_null() {
            return vec![];
        }
        let columns = PgTupleDesc::from_pg_is_copy(columns);
        columns.iter().filter(|c| !c.attisdropped).map(|c| c.atttypid.to_u32()).collect()
    }
}

/// Where a node makes a number of an object's name, the types of such values, as far as pg_upgrade gives these objects
/// other numbers (it keeps those of relations, types and roles). `calls`: the functions that the node calls.
unsafe fn renumbered(n: *mut pg_sys::Node, calls: &[Oid]) -> Vec<Oid> {
    const RENUMBERED: [Oid; 8] = [
        pg_sys::REGPROCOID,
        pg_sys::REGPROCEDUREOID,
        pg_sys::REGOPEROID,
        pg_sys::REGOPERATOROID,
        pg_sys::REGCOLLATIONOID,
        pg_sys::REGNAMESPACEOID,
        pg_sys::REGCONFIGOID,
        pg_sys::REGDICTIONARYOID,
    ];
    // SAFETY: see above; what is below these expressions are expressions.
    unsafe {
        if (*n).type_ != NodeTag::T_RelabelType && !calls.contains(&pg_sys::F_INT8_OID) {
            return vec![];
        }
        let types = children(n).into_iter().map(|c| pg_sys::exprType(c));
        types.filter(|t| RENUMBERED.contains(t)).collect()
    }
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

pub(super) fn sql_value(op: pg_sys::SQLValueFunctionOp::Type) -> &'static str {
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
