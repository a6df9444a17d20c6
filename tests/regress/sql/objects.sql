-- Every object of the extension is meant and documented: what is missing in the
-- expected output was added without a decision, what has no comment is unexplained.
\set VERBOSITY terse
CREATE EXTENSION profile_cache;

CREATE VIEW member AS
SELECT d.classid, d.objid, i.type, i.identity,
       EXISTS (SELECT FROM pg_catalog.pg_type t
               WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND (t.typrelid <> 0 OR t.typelem <> 0)) AS shadow
FROM pg_catalog.pg_depend d
     JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
     CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) i
WHERE e.extname = 'profile_cache' AND d.deptype = 'e' AND d.objsubid = 0;

-- (Not a table's row type and its array, which are the table's shadow, and share its comment: whether they are
-- members depends on the server's version.)
SELECT type, identity FROM member WHERE NOT shadow ORDER BY type COLLATE "C", identity COLLATE "C";

-- No rows: members without a comment.
SELECT type, identity
FROM member
WHERE pg_catalog.obj_description(objid, classid::regclass::name) IS NULL AND NOT shadow
ORDER BY type COLLATE "C", identity COLLATE "C";

-- What each function promises the planner, and whether everyone may run it.
SELECT m.identity, p.provolatile AS volatile, p.proparallel AS parallel, p.proisstrict AS strict,
       p.prosecdef AS definer, pg_catalog.has_function_privilege('public', p.oid, 'EXECUTE') AS everyone
FROM member m JOIN pg_catalog.pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
ORDER BY m.identity COLLATE "C";

-- Who may do what with the relations. (PostgreSQL 17 has the right to maintain them, m.)
SELECT m.identity, c.relkind, pg_catalog.replace(c.relacl::text, 'xtm/', 'xt/') AS relacl
FROM member m JOIN pg_catalog.pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
ORDER BY m.identity COLLATE "C";

DROP VIEW member;
DROP EXTENSION profile_cache;
