-- Rows that are made out of JSON, of a type of one's own: with an enum, a domain, an array and a row in it. A field of one
-- is taken by a function, which reads no table by that.
CREATE DOMAIN few AS int CHECK (VALUE < 1000);
CREATE TYPE choice AS (beta boolean, n numeric(8, 2));
CREATE TYPE chosen AS (name text, kind account_kind, no few, tags varchar(9)[], choice choice);
CREATE FUNCTION chosen_n(jsonb) RETURNS numeric LANGUAGE sql IMMUTABLE RETURN (jsonb_populate_record(NULL::choice, $1)).n;
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'chosen', to_jsonb(jsonb_populate_record(NULL::chosen, jsonb_build_object('name', p.name, 'kind', p.kind, 'no', p.user_no, 'tags', p.tags, 'choice', p.settings))),
        'devices', (SELECT jsonb_agg(jsonb_build_object('choice', x.choice, 'no', x.no) ORDER BY x.no) FROM jsonb_populate_recordset(NULL::chosen,
            (SELECT jsonb_agg(jsonb_build_object('no', d.id, 'choice', p.settings) ORDER BY d.id) FROM accounts_device AS d WHERE d.profile_id = p.id)) AS x),
        'n', chosen_n(p.settings),
        'set', (SELECT jsonb_agg(x.no + x.n ORDER BY x.no) FROM jsonb_to_recordset(jsonb_build_array(coalesce(p.settings, '{}') || jsonb_build_object('no', p.user_no), coalesce(p.settings, '{}'))) AS x (no few, n numeric))
    ) AS document
FROM accounts_profile AS p;
