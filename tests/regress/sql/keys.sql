-- Members may refer to a profile, a plan or a role by a key of any type, with another type on their
-- side, and with an equality of its own: whom a change touches is found by the foreign key's operator
-- and survives being written down as text (pending keys, linking values).
\set ECHO none
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
CREATE SCHEMA ext;
CREATE EXTENSION citext SCHEMA ext;
CREATE FUNCTION u(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$SELECT pg_catalog.lpad(n::text, 32, '0')::uuid$$;
CREATE FUNCTION report(step text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    SELECT concat_ws(', ', count(*) FILTER (WHERE e ->> 'served_from' = 'cache') || ' of ' || count(*) || ' cached',
        (SELECT nullif(count(*), 0) FROM profile_cache.pending AS p WHERE p.kind = 'key') || ' pending keys',
        (SELECT nullif(count(*), 0) FROM profile_cache.pending AS p WHERE p.kind = 'epoch') || ' pending epochs',
        (SELECT nullif(count(*), 0) FROM wrong()) || ' WRONG') INTO line
    FROM user_profile AS p CROSS JOIN LATERAL profile_cache.explain(p.supabase_user_id) AS e;
    RETURN step || ': ' || line;
END $$;
CREATE DOMAIN code AS text CHECK (value <> '');
CREATE DOMAIN number AS numeric(20, 2);
CREATE TYPE color AS ENUM ('red', 'orange', 'yellow', 'green', 'blue', 'indigo', 'violet');
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);

\echo -- bigint, referred to by int
\set parent 'bigint'
\set child 'int'
\set make 'n'
\set ECHO none
\i include/keys.sql

\echo -- int, referred to by bigint
\set parent 'int'
\set child 'bigint'
\set make 'n'
\set ECHO none
\i include/keys.sql

\echo -- smallint, referred to by smallint
\set parent 'smallint'
\set child 'smallint'
\set make 'n'
\set ECHO none
\i include/keys.sql

\echo -- numeric, referred to by int
\set parent 'numeric'
\set child 'int'
\set make 'n'
\set ECHO none
\i include/keys.sql

\echo -- numeric, referred to by numeric
\set parent 'numeric'
\set child 'numeric'
\set make 'n + 0.50'
\set ECHO none
\i include/keys.sql

\echo -- number, referred to by number
\set parent 'number'
\set child 'number'
\set make 'n'
\set ECHO none
\i include/keys.sql

\echo -- text, referred to by varchar(20)
\set parent 'text'
\set child 'varchar(20)'
\set make '''it''''s {"'' || n || ''\\\\,}'''
\set ECHO none
\i include/keys.sql

\echo -- varchar(30), referred to by text
\set parent 'varchar(30)'
\set child 'text'
\set make '''NULL'' || repeat('' '', n)'
\set ECHO none
\i include/keys.sql

\echo -- code, referred to by code
\set parent 'code'
\set child 'code'
\set make '''c'' || n'
\set ECHO none
\i include/keys.sql

\echo -- char(5), referred to by char(5)
\set parent 'char(5)'
\set child 'char(5)'
\set make 'n::text'
\set ECHO none
\i include/keys.sql

\echo -- ext.citext, referred to by ext.citext
\set parent 'ext.citext'
\set child 'ext.citext'
\set make '(''Key '' || n)::ext.citext'
\set ECHO none
\i include/keys.sql

\echo -- text COLLATE ignore_case, referred to by text COLLATE ignore_case
\set parent 'text COLLATE ignore_case'
\set child 'text COLLATE ignore_case'
\set make '''Key '' || n'
\set ECHO none
\i include/keys.sql

\echo -- uuid, referred to by uuid
\set parent 'uuid'
\set child 'uuid'
\set make 'u(n + 100)'
\set ECHO none
\i include/keys.sql

\echo -- date, referred to by date
\set parent 'date'
\set child 'date'
\set make '''2024-01-01''::date + n'
\set ECHO none
\i include/keys.sql

\echo -- timestamptz, referred to by timestamptz
\set parent 'timestamptz'
\set child 'timestamptz'
\set make '''2024-01-01 00:00:00+00''::timestamptz + n * interval ''1 hour 1 microsecond'''
\set ECHO none
\i include/keys.sql

\echo -- double precision, referred to by real
\set parent 'double precision'
\set child 'real'
\set make 'n + 0.25'
\set ECHO none
\i include/keys.sql

\echo -- color, referred to by color
\set parent 'color'
\set child 'color'
\set make '(enum_range(NULL::color))[n]'
\set ECHO none
\i include/keys.sql

\echo -- bytea, referred to by bytea
\set parent 'bytea'
\set child 'bytea'
\set make 'decode(lpad(n::text, 4, ''0''), ''hex'')'
\set ECHO none
\i include/keys.sql

\echo -- interval, referred to by interval
\set parent 'interval'
\set child 'interval'
\set make 'n * interval ''1 month'''
\set ECHO none
\i include/keys.sql

\echo -- inet, referred to by inet
\set parent 'inet'
\set child 'inet'
\set make '''10.0.0.0''::inet + n'
\set ECHO none
\i include/keys.sql
