-- The profile alone: generated column, enum, array, jsonb and timestamps; no other table.
CREATE VIEW document AS
SELECT p.auth_id,
    jsonb_build_object('id', p.id, 'shown', p.shown_name, 'kind', p.kind, 'tags', p.tags, 'settings', p.settings,
        'created', profile_cache.iso8601(p.created), 'year', extract(year FROM p.created AT TIME ZONE 'UTC')) AS document
FROM accounts_profile AS p;
