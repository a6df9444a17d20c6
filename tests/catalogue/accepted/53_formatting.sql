-- Values printed under the settings that documents are computed with: built-in functions that are STABLE only for those.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('day', p.created::date, 'month', to_char(p.created, 'YYYY-MM'), 'hour', date_trunc('hour', p.seen), 'text', p.created::text,
        'line', concat_ws(', ', p.shown_name, p.created, f.digest), 'tags', array_to_string(p.tags, ','), 'json', to_json(p.tags)) AS document
FROM accounts_profile AS p LEFT JOIN accounts_preference AS f ON f.profile_id = p.id;
