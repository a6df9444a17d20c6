-- Functions in FROM over the profile's own columns: their rows come from its row alone.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'tags', (SELECT jsonb_agg(upper(t.tag) ORDER BY t.n DESC) FROM unnest(p.tags) WITH ORDINALITY AS t (tag, n)),
        'last', (SELECT t.tag FROM unnest(p.tags) WITH ORDINALITY AS t (tag, n) ORDER BY t.n DESC LIMIT 1),
        'settings', (SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(p.settings) AS e WHERE e.key <> 'n'),
        'rows', (SELECT jsonb_agg(to_jsonb(e) ORDER BY e.key) FROM jsonb_each_text(p.settings) AS e),
        'elements', (SELECT jsonb_agg(e) FROM jsonb_array_elements(to_jsonb(p.tags)) AS e),
        'beta', (SELECT s.beta FROM jsonb_to_record(p.settings) AS s (beta boolean, n numeric)),
        'parts', ARRAY(SELECT m FROM regexp_split_to_table(p.email, '[@.]') AS m ORDER BY m),
        'numbers', (SELECT sum(g * g) FROM generate_series(1, p.user_no) AS g),
        'pairs', (SELECT jsonb_agg(jsonb_build_array(r.tag, r.word, r.n) ORDER BY r.n)
            FROM ROWS FROM (unnest(p.tags), string_to_table(p.name, ' ')) WITH ORDINALITY AS r (tag, word, n)),
        'first', EXISTS (SELECT FROM unnest(p.tags) AS t (tag) WHERE t.tag = 't1')) AS document
FROM accounts_profile AS p;
