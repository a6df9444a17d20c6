//! Which functions, operators, casts and printed types a document view may use.
//!
//! Invariant: what passes has the same result for the same rows, in any session, under the pinned
//! settings; or depends on now() beside, and the view says until when it is valid.

use crate::error::Error;
use crate::pg::query::Uses;
use crate::pg::spi::{self, Arg, At};
use crate::pg::{Oid, catalog};
use std::collections::BTreeSet;

/// STABLE built-ins whose result depends on nothing but their arguments and the pinned settings.
const HARMLESS: &str = "'anytextcat', 'array_out', 'array_to_json', 'array_to_string', 'cash_in', 'cash_out', \
    'concat', 'concat_ws', 'convert', 'convert_from', 'convert_to', 'date', 'date_cmp_timestamptz', \
    'date_eq_timestamptz', 'date_ge_timestamptz', 'date_gt_timestamptz', 'date_le_timestamptz', \
    'date_lt_timestamptz', 'date_ne_timestamptz', 'date_out', 'date_part', 'date_trunc', 'enum_in', 'enum_out', \
    'extract', 'format', 'in_range', 'interval_in', 'interval_out', 'interval_pl_timestamptz', 'json_agg', \
    'json_build_array', 'json_build_object', 'json_object_agg', 'jsonb_agg', 'jsonb_build_array', \
    'jsonb_build_object', 'jsonb_object_agg', 'jsonb_path_exists_tz', 'jsonb_path_match_tz', \
    'jsonb_path_query_array_tz', 'jsonb_path_query_first_tz', 'length', 'make_timestamptz', 'money', \
    'multirange_out', 'numeric', 'overlaps', 'quote_literal', 'quote_nullable', 'range_out', 'record_out', \
    'row_to_json', 'textanycat', 'time', 'timestamp', 'timestamp_cmp_timestamptz', 'timestamp_eq_timestamptz', \
    'timestamp_ge_timestamptz', 'timestamp_gt_timestamptz', 'timestamp_le_timestamptz', \
    'timestamp_lt_timestamptz', 'timestamp_ne_timestamptz', 'timestamp_out', 'timestamptz', \
    'timestamptz_cmp_date', 'timestamptz_cmp_timestamp', 'timestamptz_eq_date', 'timestamptz_eq_timestamp', \
    'timestamptz_ge_date', 'timestamptz_ge_timestamp', 'timestamptz_gt_date', 'timestamptz_gt_timestamp', \
    'timestamptz_le_date', 'timestamptz_le_timestamp', 'timestamptz_lt_date', 'timestamptz_lt_timestamp', \
    'timestamptz_mi_interval', 'timestamptz_ne_date', 'timestamptz_ne_timestamp', 'timestamptz_out', \
    'timestamptz_pl_interval', 'to_char', 'to_date', 'to_json', 'to_jsonb', 'to_number', 'to_timestamp'";

/// Those that depend on now() too, or can: of a text that says 'today', of a zone's offset.
const TIMELY: &str = "'now', 'transaction_timestamp', 'age', 'date_in', 'time_in', 'timetz_in', 'timestamp_in', \
    'timestamptz_in', 'timetz', 'timezone', 'array_in', 'range_in', 'multirange_in', 'record_in', 'domain_in'";

/// SQL's own words for the same.
const TIMELY_WORDS: [&str; 5] = [
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "LOCALTIME",
    "LOCALTIMESTAMP",
];

/// Refuses whatever may give another result for the same rows.
pub fn check_functions(profile: Oid, uses: &Uses, expires: bool) -> Result<(), Error> {
    let mut timely = None;
    for word in &uses.values {
        if TIMELY_WORDS.contains(word) {
            timely = Some((*word).to_owned());
        } else {
            return Err(Error::SessionValue((*word).to_owned()));
        }
    }
    let oids = |set: &BTreeSet<u32>| set.iter().map(|o| Oid::from(*o)).collect::<Vec<_>>();
    // Printing a value calls its type's output function, for json an own cast to json, and does so
    // for all that the type consists of.
    let sql = format!(
        "WITH RECURSIVE printed(oid) AS ( \
           SELECT unnest($3) UNION \
           SELECT n.oid FROM printed AS p JOIN pg_type AS t ON t.oid = p.oid CROSS JOIN LATERAL ( \
             SELECT t.typelem UNION ALL SELECT t.typbasetype \
             UNION ALL SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid \
              AND a.attnum > 0 AND NOT a.attisdropped \
             UNION ALL SELECT r.rngsubtype FROM pg_range AS r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)) AS n(oid) \
           WHERE n.oid <> 0), \
         called(oid) AS ( \
           SELECT f FROM unnest($1) AS f \
           UNION SELECT o.oprcode FROM pg_operator AS o WHERE o.oid = ANY ($2) \
           UNION SELECT k.f FROM pg_aggregate AS g CROSS JOIN LATERAL (VALUES (g.aggtransfn::oid), (g.aggfinalfn), \
             (g.aggcombinefn), (g.aggmtransfn), (g.aggminvtransfn), (g.aggmfinalfn)) AS k(f) \
            WHERE g.aggfnoid = ANY ($1) AND g.aggfnoid >= 16384 AND k.f <> 0 \
           UNION SELECT t.typoutput FROM printed AS p JOIN pg_type AS t USING (oid) WHERE t.typtype NOT IN ('d', 'p') \
           UNION SELECT c.castfunc FROM printed AS p JOIN pg_cast AS c ON c.castsource = p.oid \
            WHERE c.casttarget = 'json'::regtype AND c.castfunc <> 0) \
         SELECT f.oid::regprocedure::text, f.provolatile::text, f.proname::text, f.pronamespace = 'pg_catalog'::regnamespace, \
          f.proname IN ({HARMLESS}), \
          f.proname IN ({TIMELY}) AND f.oid <> 'age(xid)'::regprocedure, \
          CASE WHEN f.pronamespace <> 'pg_catalog'::regnamespace AND f.proowner <> $4 \
            AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.oid = f.proowner) THEN f.proowner::regrole::text END, \
          f.proname ~ '^reg(class|collation|config|dictionary|namespace|oper|operator|proc|procedure|role|type)(in|out)$' \
           OR f.proname = 'aclitemout', f.proretset \
         FROM called AS c JOIN pg_proc AS f ON f.oid = c.oid ORDER BY 1"
    );
    let owner = catalog::owner(profile).unwrap_or(Oid::INVALID);
    let found = spi::all(
        &sql,
        At::Latest,
        &[
            Arg::oids(&oids(&uses.functions)),
            Arg::oids(&oids(&uses.operators)),
            Arg::oids(&oids(&uses.printed)),
            Arg::oid(owner),
        ],
        |r| {
            let text = |n| r.text(n).unwrap_or_default();
            let is = |n| r.bool(n) == Some(true);
            let function = text(1);
            match text(2).as_str() {
                _ if is(9) => Err(Error::Unsupported("a set-returning function")),
                "v" => Err(Error::VolatileFunction(function)),
                "i" => match r.text(7) {
                    Some(owner) => Err(Error::OtherFunctionOwner { function, owner }),
                    None => Ok(None),
                },
                _ if !is(4) => Err(Error::StableFunction(function)),
                _ if is(8) => {
                    let name = text(3);
                    let printed = name.strip_suffix("out").or(name.strip_suffix("in"));
                    Err(Error::PrintsNames(printed.unwrap_or(&name).to_owned()))
                }
                _ if is(6) => Ok(Some(function)),
                _ if is(5) => Ok(None),
                _ => Err(Error::SessionValue(function)),
            }
        },
    );
    for f in found {
        timely = f?.or(timely);
    }
    // A body that is parsed (BEGIN ATOMIC, RETURN) says what it reads.
    let reads = spi::one(
        "WITH RECURSIVE called(by, oid) AS (SELECT f, f FROM unnest($1) AS f WHERE f >= 16384 \
          UNION SELECT c.by, d.refobjid FROM called AS c JOIN pg_depend AS d ON d.objid = c.oid \
           AND d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_proc'::regclass) \
         SELECT c.by::regprocedure::text, d.refobjid::regclass::text FROM called AS c JOIN pg_depend AS d \
          ON d.objid = c.oid AND d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_class'::regclass LIMIT 1",
        At::Latest,
        &[Arg::oids(&oids(&uses.functions))],
        |r| r.text(1).zip(r.text(2)),
    );
    if let Some((function, table)) = reads.flatten() {
        return Err(Error::FunctionReads { function, table });
    }
    match timely {
        Some(what) if !expires => Err(Error::NeedsValidUntil(what)),
        _ => Ok(()),
    }
}
