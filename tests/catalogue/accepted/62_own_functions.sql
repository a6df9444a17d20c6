-- The owner's own IMMUTABLE functions, operator and aggregate, one of them inlined.
CREATE FUNCTION squeezed(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(btrim($1)) $$;
CREATE FUNCTION doubled(int) RETURNS int LANGUAGE plpgsql IMMUTABLE STRICT AS $$ BEGIN RETURN 2 * $1; END $$;
CREATE FUNCTION longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT CASE WHEN length($1) >= length($2) THEN $1 ELSE coalesce($2, $1) END $$;
CREATE OPERATOR <+> (FUNCTION = longer, LEFTARG = text, RIGHTARG = text);
CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text);
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('name', squeezed(p.name), 'no', doubled(p.user_no), 'longer', p.name <+> p.email,
        'serial', (SELECT longest(d.serial ORDER BY d.id) FROM accounts_device AS d WHERE d.profile_id = p.id)) AS document
FROM accounts_profile AS p;
