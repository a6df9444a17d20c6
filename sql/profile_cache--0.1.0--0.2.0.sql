-- From 0.1.0 to 0.2.0. The tables are only added to, so that sessions that have loaded the library of 0.1.0 go on. What they
-- know of a pass under way (running, position) stays true for them: they do once more what the other library has in claims.

-- No step of a refresh is under way, which would go on from this table to one of those below.
LOCK TABLE profile_cache.epoch_progress IN SHARE UPDATE EXCLUSIVE MODE;

COMMENT ON TABLE profile_cache.failure IS 'profiles whose document could not be computed or written, so that reads use the view until it can';

ALTER TABLE profile_cache.pending_epoch ADD COLUMN definition pg_catalog.int8;
COMMENT ON COLUMN profile_cache.pending_epoch.definition IS 'a hash of the definition in whose words the link is; under another one everything is concerned';

ALTER TABLE profile_cache.epoch_progress ADD COLUMN listed pg_catalog.uuid, ADD COLUMN listed_to pg_catalog.uuid;
COMMENT ON COLUMN profile_cache.epoch_progress.position IS 'the last key it has done, where it is not listed';
COMMENT ON COLUMN profile_cache.epoch_progress.listed IS 'the pass whose profiles are in claims, as far as they have been listed';
COMMENT ON COLUMN profile_cache.epoch_progress.listed_to IS 'the last key that was looked at for that; null: all are listed';

-- What refresh lists of a pass, for whoever comes to take some of it.
CREATE TABLE profile_cache.claim (
    pass  pg_catalog.uuid   NOT NULL,
    up_to pg_catalog.uuid   NOT NULL,
    keys  pg_catalog.uuid[] NOT NULL,
    PRIMARY KEY (pass, up_to)
) WITH (vacuum_truncate = off, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE profile_cache.claim IS 'profiles that a pass has still to compute, in parts that any refresh may take';
COMMENT ON COLUMN profile_cache.claim.pass IS 'the pass';
COMMENT ON COLUMN profile_cache.claim.up_to IS 'the last of its keys';
COMMENT ON COLUMN profile_cache.claim.keys IS 'the profiles'' keys, in their order';

CREATE FUNCTION @extschema@.get_profiles(user_ids uuid[]) RETURNS TABLE (user_id uuid, profile jsonb)
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'profile_cache_get_profiles';
COMMENT ON FUNCTION @extschema@.get_profiles(uuid[]) IS 'get_profile for each of these users, in this order';
-- It asks who calls, as get_profile does; default privileges may keep it from them.
DO $$
BEGIN
    IF NOT pg_catalog.has_function_privilege('public', '@extschema@.get_profiles(uuid[])', 'EXECUTE') THEN
        GRANT EXECUTE ON FUNCTION @extschema@.get_profiles(uuid[]) TO PUBLIC;
    END IF;
END
$$;

CREATE FUNCTION profile_cache.health() RETURNS TABLE (check_name text, state text, since timestamptz, detail text, advice text)
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 11 AS 'MODULE_PATHNAME', 'profile_cache_health';
COMMENT ON FUNCTION profile_cache.health() IS 'a row for each check: ok, warning or critical, since when, what is so, and what helps';

SELECT profile_cache.set_rights();

-- Every session looks again.
UPDATE profile_cache.attachment SET problem = problem;

COMMENT ON COLUMN profile_cache.status.preloaded IS 'whether the server has preloaded the library, as the background worker needs';
COMMENT ON COLUMN profile_cache.status.worker IS 'what the background worker of this database does, or why there is none';
