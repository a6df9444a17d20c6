-- The owner's own functions in FROM, with parsed bodies: a set, a table of two columns, a row of a type of one's own.
CREATE TYPE half AS (word text, place int);
CREATE FUNCTION words(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT string_to_table($1, ' '); END;
CREATE FUNCTION numbered(text[]) RETURNS TABLE (tag text, n bigint) LANGUAGE sql IMMUTABLE STRICT BEGIN ATOMIC SELECT t.tag, t.n FROM unnest($1) WITH ORDINALITY AS t (tag, n) WHERE t.tag > 'a'; END;
CREATE FUNCTION halved(text, int) RETURNS half LANGUAGE sql IMMUTABLE RETURN ROW(left($1, $2), $2)::half;
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'words', (SELECT jsonb_agg(w ORDER BY w) FROM words(p.name) AS w),
        'tags', (SELECT jsonb_agg(to_jsonb(t) ORDER BY t.n) FROM numbered(p.tags) AS t),
        'half', h.word, 'place', h.place,
        'titles', (SELECT jsonb_agg(w ORDER BY w) FROM accounts_company AS c, words(c.name) AS w WHERE c.id = p.company_id)) AS document
FROM accounts_profile AS p CROSS JOIN LATERAL halved(p.email, p.user_no) AS h;
