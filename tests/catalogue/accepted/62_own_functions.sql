-- The owner's own IMMUTABLE functions, with parsed bodies, one behind another; operator and aggregate.
CREATE FUNCTION squeezed(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower(btrim($1));
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN 2 * $1;
CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE STRICT BEGIN ATOMIC SELECT twice($1); END;
CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE RETURN CASE WHEN length($1) >= length($2) THEN $1 ELSE coalesce($2, $1) END;
CREATE OPERATOR <+> (FUNCTION = longer, LEFTARG = text, RIGHTARG = text);
CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text);
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', squeezed(p.name), 'no', doubled(p.user_no), 'longer', p.name <+> p.email,
        'serial', (SELECT longest(d.serial ORDER BY d.id) FROM accounts_device AS d WHERE d.profile_id = p.id)) AS document
FROM accounts_profile AS p;
