//! What a document view can reach: everything whose code may run when it is read, at any depth.
//!
//! Invariant: one query says what that is, for attach, for whoever loads the attachment and for the event
//! trigger, which goes by what is written down of it ([`concerned`]). What passes [`Reached::check`] runs only code that is the same in every session (internal, C, or SQL
//! whose body was parsed when it was created), of nobody but the tables' owner and superusers.
//!
//! Why no other owner: the view runs as the tables' owner, and whoever owns what it reaches may replace it,
//! or put code behind it (a cast to json behind a type).
//!
//! Why no other language. A function in a procedural language is compiled when a session first calls it,
//! under whatever search_path and settings that caller has, and stays so for the session: whoever shares
//! the session, and may call it first, says what its names and literals mean (pg_temp comes before
//! pg_catalog for types, wherever it is not named). SQL in a string is in no better case where PostgreSQL
//! keeps what it has planned (CHECKs of domains and support functions of operator classes in the type
//! cache, index expressions in the relation cache, from 18 on every SQL function); and what a string calls
//! is not in pg_depend, so nobody hears of its replacement. A parsed body names objects, not names.

use crate::error::Error;
use crate::pg::parse_tree::simplified;
use crate::pg::spi::{self, Arg, Snapshot};
use crate::pg::{Oid, catalog};
use pgrx::pg_sys;
use std::collections::BTreeSet;

/// Everything that is reached, as rows (classid, objid, made) of `reached`, from what `roots` selects.
///
/// `made`: of a type, that an expression may make a value of it, and so check a domain and run input
/// functions; a column's value merely is there, and can be printed, compared and sorted. Built-in objects
/// are pinned: pg_depend does not name them, and they are not followed.
///
/// - What pg_depend knows: a view's rule, a parsed body, an operator, an aggregate, a cast, a type, a text
///   search configuration and so on name what they use. Not followed: a column's default, a trigger,
///   a policy, a rule for writing, which no read runs.
/// - What PostgreSQL looks up by itself: a type's elements, fields and CHECKs; its cast to json, which
///   to_jsonb uses; what it is the same as; its default operator class, by which values in arrays and rows are
///   compared; an operator's commutator and negator, and all of the operator families that it is in, which the
///   planner takes for it; the operator classes of the tables' indexes.
pub fn reached(roots: &str) -> String {
    format!(
        "WITH RECURSIVE reached(classid, objid, made) AS ( {roots} \
         UNION \
          SELECT n.classid, n.objid, n.made FROM reached AS u CROSS JOIN LATERAL ( \
            SELECT d.refclassid, d.refobjid, u.made OR u.classid NOT IN ('pg_class'::regclass, 'pg_type'::regclass) \
              FROM pg_depend AS d \
             WHERE d.classid = u.classid AND d.objid = u.objid AND d.deptype IN ('n', 'i', 'a') \
              AND d.refclassid IN ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass, 'pg_collation'::regclass, \
               'pg_namespace'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass, 'pg_constraint'::regclass, \
               'pg_ts_config'::regclass, 'pg_ts_dict'::regclass, 'pg_ts_template'::regclass, 'pg_ts_parser'::regclass) \
            UNION ALL SELECT d.refclassid, d.refobjid, d.refclassid <> 'pg_class'::regclass \
              FROM pg_rewrite AS w JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid \
             WHERE u.classid = 'pg_class'::regclass AND w.ev_class = u.objid AND w.ev_type = '1' \
            UNION ALL SELECT d.refclassid, d.refobjid, true FROM pg_index AS i \
              JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid \
               AND d.refclassid = 'pg_opclass'::regclass \
             WHERE u.classid = 'pg_class'::regclass AND i.indrelid = u.objid \
            UNION ALL SELECT 'pg_class'::regclass, t.typrelid, u.made FROM pg_type AS t \
             WHERE u.classid = 'pg_type'::regclass AND t.oid = u.objid AND t.typrelid <> 0 \
            UNION ALL SELECT 'pg_type'::regclass, t.typelem, u.made FROM pg_type AS t \
             WHERE u.classid = 'pg_type'::regclass AND t.oid = u.objid AND t.typelem <> 0 \
            UNION ALL SELECT 'pg_constraint'::regclass, k.oid, true FROM pg_constraint AS k \
             WHERE u.classid = 'pg_type'::regclass AND u.made AND k.contypid = u.objid \
            UNION ALL SELECT 'pg_cast'::regclass, t.oid, true FROM pg_cast AS t \
             WHERE u.classid = 'pg_type'::regclass AND t.castsource = u.objid AND t.casttarget = 'json'::regtype AND t.castmethod = 'f' \
            UNION ALL SELECT 'pg_type'::regclass, t.casttarget, u.made FROM pg_cast AS t \
             WHERE u.classid = 'pg_type'::regclass AND t.castsource = u.objid AND t.castmethod = 'b' AND t.casttarget >= 16384 \
            UNION ALL SELECT 'pg_opclass'::regclass, c.oid, true FROM pg_opclass AS c \
             WHERE u.classid = 'pg_type'::regclass AND c.opcintype = u.objid AND c.opcdefault \
            UNION ALL SELECT 'pg_operator'::regclass, k.o, true FROM pg_operator AS p, LATERAL (VALUES (p.oprcom), (p.oprnegate)) AS k(o) \
             WHERE u.classid = 'pg_operator'::regclass AND p.oid = u.objid AND k.o >= 16384 \
            UNION ALL SELECT 'pg_opfamily'::regclass, m.amopfamily, true FROM pg_amop AS m \
             WHERE u.classid = 'pg_operator'::regclass AND m.amopopr = u.objid \
            UNION ALL SELECT 'pg_operator'::regclass, m.amopopr, true FROM pg_amop AS m \
             WHERE u.classid = 'pg_opfamily'::regclass AND m.amopfamily = u.objid AND m.amopopr >= 16384 \
            UNION ALL SELECT 'pg_proc'::regclass, s.amproc, true FROM pg_amproc AS s \
             WHERE u.classid = 'pg_opfamily'::regclass AND s.amprocfamily = u.objid AND s.amproc >= 16384 \
            ) AS n(classid, objid, made)) "
    )
}

/// The relations $1, as roots.
pub const RELATIONS: &str = "SELECT 'pg_class'::regclass::oid, o, false FROM unnest($1) AS o";

/// All that DDL may be about that can change a document, as rows (classid, objid, true): what reading the view
/// reaches, and the equality operators of the tables' foreign keys; our triggers; what inherits; our schema. And
/// what can change only what is proven, with false: unique indexes, constraints that are no CHECKs, tables that foreign keys refer to. $1: the profile table, the view, and
/// all relations that it reads. The server's own text search objects, which can be altered and whose users
/// pg_depend does not know, are not here.
pub fn concerned() -> String {
    let roots = format!(
        "{RELATIONS} UNION SELECT 'pg_operator'::regclass, o, true FROM pg_constraint AS k CROSS JOIN LATERAL unnest(k.conpfeqop) AS o \
         WHERE k.contype = 'f' AND k.conrelid = ANY ($1) AND o >= 16384"
    );
    format!(
        "{}, relation(oid) AS (SELECT DISTINCT r.objid FROM reached AS r WHERE r.classid = 'pg_class'::regclass), \
          concerned(classid, objid, shown) AS ( \
          SELECT r.classid, r.objid, true FROM reached AS r \
          UNION ALL SELECT 'pg_class'::regclass, i.indexrelid, false FROM relation AS r \
           JOIN pg_index AS i ON i.indrelid = r.oid AND i.indisunique \
          UNION ALL SELECT 'pg_constraint'::regclass, k.oid, false FROM relation AS r \
           JOIN pg_constraint AS k ON k.conrelid = r.oid AND k.contype <> 'c' \
          UNION ALL SELECT 'pg_class'::regclass, k.confrelid, false FROM relation AS r \
           JOIN pg_constraint AS k ON k.conrelid = r.oid AND k.contype = 'f' \
          UNION ALL SELECT 'pg_trigger'::regclass, g.oid, true FROM relation AS r JOIN pg_trigger AS g ON g.tgrelid = r.oid \
           JOIN pg_proc AS f ON f.oid = g.tgfoid AND f.pronamespace = 'profile_cache'::regnamespace \
          UNION ALL SELECT 'pg_class'::regclass, h.inhrelid, true FROM relation AS r JOIN pg_inherits AS h ON h.inhparent = r.oid \
          UNION ALL SELECT 'pg_class'::regclass, h.inhparent, true FROM relation AS r JOIN pg_inherits AS h ON h.inhrelid = r.oid \
          UNION ALL SELECT 'pg_namespace'::regclass, 'profile_cache'::regnamespace, true) \
         SELECT c.classid, c.objid, bool_or(c.shown) FROM concerned AS c GROUP BY 1, 2",
        reached(&roots)
    )
}

/// In SQL, that an object `o` (classid, objid) itself uses anything but the server's and other relations.
pub const USES_OWN: &str = "EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = o.classid AND d.objid = o.objid AND d.refobjid >= 16384 \
     AND d.refclassid NOT IN ('pg_class'::regclass, 'pg_namespace'::regclass, 'pg_constraint'::regclass))";

/// The same of what planning a query on the relations $1, or writing their rows, may run: code of their
/// indexes, CHECKs and statistics, of those that use anything but the server's.
pub fn concerned_beside() -> String {
    let roots = "SELECT o.classid, o.objid, true FROM ( \
          SELECT 'pg_class'::regclass::oid, i.indexrelid FROM pg_index AS i WHERE i.indrelid = ANY ($1) \
          UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint AS k WHERE k.conrelid = ANY ($1) AND k.contype = 'c' \
          UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid FROM pg_statistic_ext AS s WHERE s.stxrelid = ANY ($1) \
         ) AS o(classid, objid)";
    let roots = format!("{roots} WHERE {USES_OWN}");
    format!("{} SELECT DISTINCT r.classid, r.objid, false FROM reached AS r", reached(&roots))
}

/// The indexes $1, whose expressions, predicates and operator classes are run to write a row.
const INDEXES: &str = "SELECT 'pg_class'::regclass::oid, o, true FROM unnest($1) AS o";

/// The functions $1.
const FUNCTIONS: &str = "SELECT 'pg_proc'::regclass::oid, f, true FROM unnest($1) AS f";

/// A function that is not the same in every session: neither internal nor c, nor sql with a parsed body.
const ANOTHER_LANGUAGE: &str =
    "f.prolang NOT IN (12, 13) AND NOT (f.prolang = 14 AND f.prosqlbody IS NOT NULL)";

/// What is reached, each object once: its catalog and its number.
pub struct Reached {
    classes: Vec<Oid>,
    objects: Vec<Oid>,
}

/// The same as rows, in SQL with [`Reached::args`].
const ROWS: &str = "unnest($1, $2) AS u(classid, objid)";

impl Reached {
    /// By reading the document view.
    pub fn by_view(profile: Oid, document: Oid) -> Reached {
        Reached::from(RELATIONS, &[profile, document])
    }

    fn from(roots: &str, from: &[Oid]) -> Reached {
        let sql =
            format!("{} SELECT DISTINCT r.classid, r.objid FROM reached AS r", reached(roots));
        let found =
            spi::all(&sql, Snapshot::Latest, &[Arg::oids(from)], |r| r.oid(1).zip(r.oid(2)));
        let (classes, objects) = found.into_iter().flatten().unzip();
        Reached { classes, objects }
    }

    fn args(&self) -> [Arg; 2] {
        [Arg::oids(&self.classes), Arg::oids(&self.objects)]
    }

    /// Whether anything is reached that is not the server's, but for relations: a function, a type, a
    /// collation and so on, or a function that planning may call.
    pub fn has_own_code(&self) -> bool {
        let apart = [pg_sys::RelationRelationId, pg_sys::NamespaceRelationId, PG_CONSTRAINT];
        let mut all = self.classes.iter().zip(&self.objects);
        all.any(|(class, object)| object.to_u32() >= FIRST_OWN && !apart.contains(class))
    }

    /// Whether anything is reached that goes with a session.
    pub fn has_temporary(&self) -> bool {
        let mut all = self.classes.iter().zip(&self.objects);
        all.any(|(class, object)| {
            *class == pg_sys::NamespaceRelationId && catalog::is_temporary_schema(*object)
        })
    }

    /// The types that are reached.
    pub fn types(&self) -> Vec<Oid> {
        let all = self.classes.iter().zip(&self.objects);
        let types = all.filter(|(class, _)| **class == pg_sys::TypeRelationId);
        types.map(|(_, object)| *object).collect()
    }

    /// Whether an index, a CHECK or statistics of the reached tables use anything that is not the server's: then
    /// planning may run it. DDL of that kind changes no document, so it is asked at each load.
    pub fn plans_own_code(relations: &[Oid]) -> bool {
        spi::one(
            "SELECT FROM unnest($1) AS r(oid) CROSS JOIN LATERAL ( \
              SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index AS i WHERE i.indrelid = r.oid \
               AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL) \
              UNION ALL SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint AS c WHERE c.conrelid = r.oid AND c.contype = 'c' \
              UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid FROM pg_statistic_ext AS s \
               WHERE s.stxrelid = r.oid AND s.stxexprs IS NOT NULL) AS o(classid, objid) \
             JOIN pg_depend AS d ON d.classid = o.classid AND d.objid = o.objid AND d.refobjid >= 16384 \
              AND d.refclassid NOT IN ('pg_class'::regclass, 'pg_namespace'::regclass) LIMIT 1",
            Snapshot::Latest,
            &[Arg::oids(relations)],
            |_| (),
        )
        .is_some()
    }

    /// Whether nobody but the tables' owner and superusers could have code run by this, and all of the code is
    /// the same in every session. The error says what to do.
    pub fn check(&self, profile: Oid) -> Result<(), Error> {
        // Where the table is gone, every table and view is another's.
        let owner = catalog::owner(profile).unwrap_or(Oid::INVALID);
        if let Some(error) = self.unsafe_code(owner) {
            return Err(error);
        }
        let run = self.run_by_planner()?;
        if run.is_empty() {
            return Ok(());
        }
        let error = Reached::from(FUNCTIONS, &run).unsafe_code(owner);
        error.map_or(Ok(()), Err)
    }

    fn unsafe_code(&self, owner: Oid) -> Option<Error> {
        self.another_owner(owner).or_else(|| self.another_language())
    }

    /// Tables and views must be the owner's own, since a view reads as its owner; all else may be a superuser's.
    /// What belongs to another object by nature (an array type to its element's) is not asked for.
    fn another_owner(&self, owner: Oid) -> Option<Error> {
        let sql = format!(
            "SELECT i.type, CASE WHEN u.classid = 'pg_proc'::regclass THEN u.objid::regprocedure::text ELSE i.identity END, \
              pg_get_userbyid(w.owner)::text, w.is_relation FROM {ROWS} CROSS JOIN LATERAL ( \
                SELECT c.relowner, true FROM pg_class AS c WHERE u.classid = 'pg_class'::regclass AND c.oid = u.objid \
                 AND c.relkind NOT IN ('c', 'i', 'I') \
                UNION ALL SELECT f.proowner, false FROM pg_proc AS f WHERE u.classid = 'pg_proc'::regclass AND f.oid = u.objid \
                UNION ALL SELECT o.oprowner, false FROM pg_operator AS o WHERE u.classid = 'pg_operator'::regclass AND o.oid = u.objid \
                UNION ALL SELECT t.typowner, false FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid \
                 WHERE u.classid = 'pg_type'::regclass AND t.oid = u.objid AND t.typtype <> 'm' \
                  AND t.typsubscript <> 'array_subscript_handler'::regproc AND coalesce(c.relkind = 'c', true) \
                UNION ALL SELECT l.collowner, false FROM pg_collation AS l WHERE u.classid = 'pg_collation'::regclass AND l.oid = u.objid \
                UNION ALL SELECT c.opcowner, false FROM pg_opclass AS c WHERE u.classid = 'pg_opclass'::regclass AND c.oid = u.objid \
                UNION ALL SELECT m.opfowner, false FROM pg_opfamily AS m WHERE u.classid = 'pg_opfamily'::regclass AND m.oid = u.objid \
                UNION ALL SELECT s.cfgowner, false FROM pg_ts_config AS s WHERE u.classid = 'pg_ts_config'::regclass AND s.oid = u.objid \
                UNION ALL SELECT s.dictowner, false FROM pg_ts_dict AS s WHERE u.classid = 'pg_ts_dict'::regclass AND s.oid = u.objid \
               ) AS w(owner, is_relation) CROSS JOIN LATERAL pg_identify_object(u.classid, u.objid, 0) AS i \
             WHERE w.owner <> $3 AND (w.is_relation OR NOT EXISTS \
              (SELECT FROM pg_roles AS r WHERE r.oid = w.owner AND r.rolsuper)) \
             ORDER BY w.is_relation DESC, i.type, i.identity LIMIT 1"
        );
        let [classes, objects] = self.args();
        let args = [classes, objects, Arg::oid(owner)];
        spi::one(&sql, Snapshot::Latest, &args, |r| Error::OtherOwner {
            kind: named(r, 1),
            name: named(r, 2),
            owner: named(r, 3),
            expected: catalog::role_name(owner),
            relation: r.bool(4) == Some(true),
        })
    }

    fn another_language(&self) -> Option<Error> {
        let sql = format!(
            "SELECT f.oid::regprocedure::text, l.lanname::text, format('%s(%s) RETURNS %s', f.oid::regproc, \
              pg_get_function_arguments(f.oid), pg_get_function_result(f.oid)) \
             FROM {ROWS} JOIN pg_proc AS f ON u.classid = 'pg_proc'::regclass AND f.oid = u.objid \
             JOIN pg_language AS l ON l.oid = f.prolang WHERE {ANOTHER_LANGUAGE} ORDER BY 1 LIMIT 1"
        );
        spi::one(&sql, Snapshot::Latest, &self.args(), |r| Error::AnotherLanguage {
            function: named(r, 1),
            language: named(r, 2),
            signature: named(r, 3),
        })
    }

    /// Functions that planning a query on the used tables may run: in expressions and predicates of indexes, in
    /// CHECKs, in statistics. Those whose arguments are constants it calls. One in SQL whose arguments are not it
    /// puts into its caller's place, and calls what is constant in that. Any other with a column among its
    /// arguments is not run by reading.
    fn run_by_planner(&self) -> Result<Vec<Oid>, Error> {
        let sql = format!(
            "SELECT k.tree::text FROM {ROWS} CROSS JOIN LATERAL ( \
              SELECT i.indexprs FROM pg_index AS i WHERE i.indrelid = u.objid \
              UNION ALL SELECT i.indpred FROM pg_index AS i WHERE i.indrelid = u.objid \
              UNION ALL SELECT s.stxexprs FROM pg_statistic_ext AS s WHERE s.stxrelid = u.objid \
              UNION ALL SELECT c.conbin FROM pg_constraint AS c WHERE c.conrelid = u.objid AND c.contype = 'c') AS k(tree) \
             WHERE u.classid = 'pg_class'::regclass AND k.tree IS NOT NULL"
        );
        let trees = spi::all(&sql, Snapshot::Latest, &self.args(), |r| r.text(1));
        let (mut called, mut others) = (BTreeSet::new(), BTreeSet::new());
        for tree in trees.into_iter().flatten() {
            let found = simplified(&tree).ok_or(Error::TooDeep)?;
            called.extend(found.folded);
            others.extend(found.others);
        }
        let own = |set: BTreeSet<u32>| {
            let own = set.into_iter().filter(|f| *f >= FIRST_OWN);
            own.map(Oid::from).collect::<Vec<Oid>>()
        };
        let mut run = own(called);
        let others = own(others);
        if !others.is_empty() {
            let in_sql = spi::all(
                "SELECT f.oid FROM pg_proc AS f WHERE f.oid = ANY ($1) AND f.prolang = 14",
                Snapshot::Latest,
                &[Arg::oids(&others)],
                |r| r.oid(1),
            );
            run.extend(in_sql.into_iter().flatten());
        }
        Ok(run)
    }

    /// The bodies of functions, their arguments' defaults, and the CHECKs of domains.
    pub fn stored(&self) -> Vec<StoredExpression> {
        let sql = format!(
            "SELECT DISTINCT k.of, k.tree::text FROM {ROWS} CROSS JOIN LATERAL ( \
              SELECT 'function ' || f.oid::regprocedure::text, e.tree FROM pg_proc AS f, \
                LATERAL (VALUES (f.prosqlbody), (f.proargdefaults)) AS e(tree) \
               WHERE u.classid = 'pg_proc'::regclass AND f.oid = u.objid AND e.tree IS NOT NULL \
              UNION ALL SELECT 'the CHECK of domain ' || k.contypid::regtype::text, k.conbin FROM pg_constraint AS k \
               WHERE u.classid = 'pg_constraint'::regclass AND k.oid = u.objid AND k.contypid <> 0 AND k.conbin IS NOT NULL \
             ) AS k(of, tree) ORDER BY 1, 2"
        );
        let found = spi::all(&sql, Snapshot::Latest, &self.args(), |r| {
            Some(StoredExpression { of: r.text(1)?, tree: r.text(2)? })
        });
        found.into_iter().flatten().collect()
    }

    /// A function whose parsed body reads a table, or a sequence; and which. A field of a composite type is no more
    /// than the value that it is taken from.
    pub fn reads(&self) -> Option<(String, String)> {
        let sql = format!(
            "SELECT u.objid::regprocedure::text, d.refobjid::regclass::text FROM {ROWS} \
              JOIN pg_depend AS d ON d.classid = u.classid AND d.objid = u.objid AND d.refclassid = 'pg_class'::regclass \
              JOIN pg_class AS c ON c.oid = d.refobjid AND c.relkind <> 'c' \
             WHERE u.classid = 'pg_proc'::regclass ORDER BY 1, 2 LIMIT 1"
        );
        spi::one(&sql, Snapshot::Latest, &self.args(), |r| r.text(1).zip(r.text(2))).flatten()
    }
}

/// A name for a message. Something that is just being dropped may have none; it is unsafe all the same.
fn named(r: &spi::Row, column: i32) -> String {
    r.text(column).unwrap_or_else(|| "(no name)".into())
}

/// The OID of pg_constraint itself (pg_constraint.h), which pgrx does not bind.
const PG_CONSTRAINT: Oid = Oid::from_u32(2606);

/// Objects below this number are the server's.
const FIRST_OWN: u32 = 16384;

/// Code that the view reaches and that is kept as an expression: whose it is, in words, and the tree.
pub struct StoredExpression {
    pub of: String,
    pub tree: String,
}

/// The profile table's indexes that run other code than a document view may reach: for an expression, a
/// predicate, an operator class. Mostly there are none. A row that needs a new entry in one of them can only
/// be written by running that, as whoever writes it.
pub fn foreign_indexes(profile: Oid) -> Vec<Oid> {
    let indexes: Vec<Oid> = spi::all(
        "SELECT i.indexrelid FROM pg_index AS i WHERE i.indrelid = $1 AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL \
          OR EXISTS (SELECT FROM unnest(i.indclass) AS c(oid) WHERE c.oid >= 16384)) ORDER BY i.indexrelid::regclass::text",
        Snapshot::Latest,
        &[Arg::oid(profile)],
        |r| r.oid(1),
    )
    .into_iter()
    .flatten()
    .collect();
    if indexes.is_empty() {
        return vec![];
    }
    let owner = catalog::owner(profile).unwrap_or(Oid::INVALID);
    let foreign = |indexes: &[Oid]| Reached::from(INDEXES, indexes).unsafe_code(owner).is_some();
    if !foreign(&indexes) {
        return vec![];
    }
    indexes.into_iter().filter(|i| foreign(&[*i])).collect()
}
