-- What the tests ask after each step. Late bound, so that it depends on nothing.
-- wrong(): what get_profile serves and what the view says, wherever they differ to the byte, and
-- whatever verify() finds; no row is good. A profile that the view has no row for serves null. The
-- settings are those that documents are computed under.
CREATE FUNCTION wrong() RETURNS TABLE (what text, user_id uuid, served text, expected text)
    LANGUAGE plpgsql SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres' AS $$
BEGIN
    RETURN QUERY SELECT 'served', p.supabase_user_id, left(get_profile(p.supabase_user_id)::text, 500), left(v.document::text, 500)
        FROM user_profile AS p LEFT JOIN profile_document AS v USING (supabase_user_id)
        WHERE get_profile(p.supabase_user_id)::text IS DISTINCT FROM v.document::text;
    RETURN QUERY SELECT v.problem, v.user_id, left(v.served::text, 500), left(v.expected::text, 500) FROM profile_cache.verify() AS v;
END
$$;
-- state(): each user that is served from the cache, or why not.
CREATE FUNCTION state() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT string_agg(p.id || ' ' || CASE e ->> 'served_from' WHEN 'view' THEN e ->> 'reason' ELSE e ->> 'served_from' END, ', ' ORDER BY p.id)
            FROM user_profile AS p CROSS JOIN LATERAL profile_cache.explain(p.supabase_user_id) AS e);
END
$$;
-- pending(): what refresh has still to do.
CREATE FUNCTION pending() RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT line FROM profile_cache.pending AS p CROSS JOIN LATERAL concat_ws(', ', p.kind || ': ' || p.reason,
            p.link_table || '.' || array_to_string(p.link_columns, ',') || ' in ' || ARRAY(SELECT v FROM unnest(p.link_values) AS v ORDER BY v)::text,
            array_to_string(p.key_columns, ',') || ' = ' || array_to_string(p.key_values, ',')) AS line
        ORDER BY line COLLATE "C";
END
$$;
-- untimed(): what status warns of, its times as TIME.
CREATE FUNCTION untimed(text[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN regexp_replace($1::text, '[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z', 'TIME', 'g');
END
$$;
-- What refresh says has rates in it that change: its tests ask for it.
SET client_min_messages = warning;
