//! Which functions, operators, casts and printed types a document view may use, as to their results. Whose
//! they are and what they are written in is `reach.rs`'s.
//!
//! Invariant: what passes has the same result for the same rows, in any session, under the pinned
//! settings; or depends on now() beside, and the view says until when it is valid. Only of a function in C
//! is it believed that it is IMMUTABLE if it says so.

use crate::error::Error;
use crate::pg::Oid;
use crate::pg::parse_tree::{Uses, of_expression};
use crate::pg::spi::{self, Arg, Snapshot};
use crate::proof::reach::{Reached, StoredExpression};
use std::collections::BTreeSet;

/// STABLE built-ins whose result depends on nothing but their arguments and the pinned settings.
const HARMLESS: &str = "'anytextcat', 'array_out', 'array_to_json', 'array_to_string', 'cash_in', 'cash_out', \
    'concat', 'concat_ws', 'convert', 'convert_from', 'convert_to', 'date', 'date_cmp_timestamptz', \
    'date_eq_timestamptz', 'date_ge_timestamptz', 'date_gt_timestamptz', 'date_le_timestamptz', \
    'date_lt_timestamptz', 'date_ne_timestamptz', 'date_out', 'date_part', 'date_trunc', 'enum_in', 'enum_out', \
    'extract', 'format', 'generate_series', 'in_range', 'interval_in', 'interval_out', 'interval_pl_timestamptz', 'json_agg', \
    'json_build_array', 'json_build_object', 'json_object_agg', 'jsonb_agg', 'jsonb_build_array', \
    'jsonb_build_object', 'jsonb_object_agg', 'json_agg_strict', 'json_object_agg_strict', 'json_object_agg_unique', \
    'json_object_agg_unique_strict', 'json_populate_record', 'json_populate_recordset', 'json_to_record', \
    'json_to_recordset', 'jsonb_agg_strict', 'jsonb_object_agg_strict', 'jsonb_object_agg_unique', \
    'jsonb_object_agg_unique_strict', 'jsonb_path_exists_tz', 'jsonb_path_match_tz', 'jsonb_path_query_tz', \
    'jsonb_path_query_array_tz', 'jsonb_path_query_first_tz', 'jsonb_populate_record', 'jsonb_populate_recordset', \
    'jsonb_to_record', 'jsonb_to_recordset', 'length', 'make_timestamptz', 'money', \
    'multirange_out', 'numeric', 'overlaps', 'quote_literal', 'quote_nullable', 'range_out', 'record_out', \
    'row_to_json', 'textanycat', 'time', 'timestamp', 'timestamp_cmp_timestamptz', 'timestamp_eq_timestamptz', \
    'timestamp_ge_timestamptz', 'timestamp_gt_timestamptz', 'timestamp_le_timestamptz', \
    'timestamp_lt_timestamptz', 'timestamp_ne_timestamptz', 'timestamp_out', 'timestamptz', \
    'timestamptz_cmp_date', 'timestamptz_cmp_timestamp', 'timestamptz_eq_date', 'timestamptz_eq_timestamp', \
    'timestamptz_ge_date', 'timestamptz_ge_timestamp', 'timestamptz_gt_date', 'timestamptz_gt_timestamp', \
    'timestamptz_le_date', 'timestamptz_le_timestamp', 'timestamptz_lt_date', 'timestamptz_lt_timestamp', \
    'timestamptz_mi_interval', 'timestamptz_ne_date', 'timestamptz_ne_timestamp', 'timestamptz_out', \
    'timestamptz_pl_interval', 'to_char', 'to_date', 'to_json', 'to_jsonb', 'to_number', 'to_timestamp'";

/// They say that they are IMMUTABLE, and look up by its number what may be replaced or gone.
const BY_NUMBER: &str = "'ts_parse(oid,text)'::regprocedure, 'ts_token_type(oid)'::regprocedure";

/// Those that depend on now() too, or can: of a text that says 'today', of a zone's offset.
const TIMELY: &str = "'now', 'transaction_timestamp', 'age', 'date_in', 'time_in', 'timetz_in', 'timestamp_in', \
    'timestamptz_in', 'timetz', 'timezone', 'array_in', 'range_in', 'multirange_in', 'record_in', 'domain_in'";

/// SQL's own words for the same.
const TIMELY_WORDS: [&str; 5] =
    ["CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "LOCALTIME", "LOCALTIMESTAMP"];

/// Refuses whatever may give another result for the same rows: of what the view itself calls, and of what is
/// kept behind that as an expression (parsed bodies of functions, arguments' defaults, CHECKs of domains).
pub fn check_functions(reached: &Reached, uses: &Uses, expires: bool) -> Result<(), Error> {
    let timely = check_calls(uses)?;
    if let Some((function, table)) = reached.reads() {
        return Err(Error::FunctionReads { function, table });
    }
    for StoredExpression { of, tree } in reached.stored() {
        let behind = |calls: String, which| Error::CallsBehind { of: of.clone(), calls, which };
        let Some(uses) = of_expression(&tree) else {
            return Err(behind("an expression".into(), "nested more than 1000 deep"));
        };
        match check_calls(&uses) {
            Ok(None) => {}
            Ok(Some(timely)) => return Err(behind(timely, "which depends on the time")),
            Err(Error::VolatileFunction(f)) => return Err(behind(f, "which is VOLATILE")),
            Err(Error::StableFunction(f)) => return Err(behind(f, "which is STABLE")),
            Err(Error::SessionValue(f)) => {
                return Err(behind(f, "which depends on the session or its settings"));
            }
            Err(other) => return Err(other),
        }
    }
    match timely {
        Some(what) if !expires => Err(Error::NeedsValidUntil(what)),
        _ => Ok(()),
    }
}

/// What of it depends on the time, if anything does; or the error where its result depends on more.
fn check_calls(uses: &Uses) -> Result<Option<String>, Error> {
    let mut timely = None;
    for word in &uses.values {
        if TIMELY_WORDS.contains(word) {
            timely = Some((*word).to_owned());
        } else {
            return Err(Error::SessionValue((*word).to_owned()));
        }
    }
    if let Some(what) = uses.unfollowed {
        return Err(Error::Unfollowed(what));
    }
    let oids = |set: &BTreeSet<u32>| set.iter().map(|o| Oid::from(*o)).collect::<Vec<_>>();
    let found = spi::all(
        &called(),
        Snapshot::Latest,
        &[
            Arg::oids(&oids(&uses.functions)),
            Arg::oids(&oids(&uses.operators)),
            Arg::oids(&oids(&uses.printed)),
            Arg::oids(&oids(&uses.made)),
        ],
        result_of,
    );
    for f in found {
        timely = f?.or(timely);
    }
    Ok(timely)
}

/// The same of one function, as a row of [`called`].
fn result_of(r: &spi::Row) -> Result<Option<String>, Error> {
    let text = |n| r.text(n).ok_or_else(|| Error::Internal("a function without a name".into()));
    let is = |n| r.bool(n) == Some(true);
    let function = text(1)?;
    match text(2)?.as_str() {
        "v" => Err(Error::VolatileFunction(function)),
        "i" => Ok(None),
        _ if !is(4) => Err(Error::StableFunction(function)),
        _ if is(7) => {
            let name = text(3)?;
            let printed = name.strip_suffix("out").or(name.strip_suffix("in"));
            Err(Error::PrintsNames(printed.unwrap_or(&name).to_owned()))
        }
        _ if is(6) => Ok(Some(function)),
        _ if is(5) => Ok(None),
        _ => Err(Error::SessionValue(function)),
    }
}

/// In SQL, the functions behind the functions $1, the operators $2, the printed types $3 and the made types $4,
/// with what [`result_of`] asks of each.
fn called() -> String {
    // Printing a value calls its type's output function, for json an own cast to json, and does so
    // for all that the type consists of. Making one of a text calls the input functions; those of arrays,
    // domains, ranges and rows do what is asked of their parts. What an aggregate makes or prints, no node says.
    format!(
        "WITH RECURSIVE part(of, oid) AS ( \
           SELECT 'printed', unnest($3) UNION SELECT 'made', unnest($4) \
           UNION SELECT 'printed', g.aggtranstype FROM pg_aggregate AS g WHERE g.aggfnoid = ANY ($1) AND g.aggfnoid >= 16384 UNION \
           SELECT p.of, n.oid FROM part AS p JOIN pg_type AS t ON t.oid = p.oid CROSS JOIN LATERAL ( \
             SELECT t.typelem UNION ALL SELECT t.typbasetype \
             UNION ALL SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid \
              AND a.attnum > 0 AND NOT a.attisdropped \
             UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) AS n(oid) \
           WHERE n.oid <> 0), \
         printed(oid) AS (SELECT p.oid FROM part AS p WHERE p.of = 'printed'), \
         aggregating(oid) AS ( \
           SELECT k.f FROM pg_aggregate AS g CROSS JOIN LATERAL (VALUES (g.aggtransfn::oid), (g.aggfinalfn), \
             (g.aggcombinefn), (g.aggmtransfn), (g.aggminvtransfn), (g.aggmfinalfn)) AS k(f) \
            WHERE g.aggfnoid = ANY ($1) AND g.aggfnoid >= 16384 AND k.f <> 0), \
         called(oid) AS ( \
           SELECT f FROM unnest($1) AS f \
           UNION SELECT o.oprcode FROM pg_operator AS o WHERE o.oid = ANY ($2) \
           UNION SELECT a.oid FROM aggregating AS a \
           UNION SELECT t.typoutput FROM printed AS p JOIN pg_type AS t USING (oid) WHERE t.typtype NOT IN ('d', 'p') \
           UNION SELECT t.typinput FROM part AS p JOIN pg_type AS t USING (oid) \
            WHERE p.of = 'made' AND t.typtype IN ('b', 'e') AND t.typinput <> 'array_in'::regproc \
           UNION SELECT c.castfunc FROM printed AS p JOIN pg_cast AS c ON c.castsource = p.oid \
            WHERE c.casttarget = 'json'::regtype AND c.castfunc <> 0) \
         SELECT f.oid::regprocedure::text, CASE WHEN f.oid IN ({BY_NUMBER}) THEN 's' ELSE f.provolatile::text END, f.proname::text, f.pronamespace = 'pg_catalog'::regnamespace, \
          f.proname IN ({HARMLESS}) AND NOT (f.proname ~ '^jsonb?_populate' AND f.oid IN (SELECT a.oid FROM aggregating AS a)), \
          f.proname IN ({TIMELY}) AND f.oid <> 'age(xid)'::regprocedure, \
          f.proname ~ '^reg(class|collation|config|dictionary|namespace|oper|operator|proc|procedure|role|type)(in|out)$' \
           OR f.proname = 'aclitemout' \
         FROM called AS c JOIN pg_proc AS f ON f.oid = c.oid ORDER BY 1"
    )
}
