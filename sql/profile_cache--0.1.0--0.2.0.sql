-- From 0.1.0 to 0.2.0. The tables are only added to, so that sessions that have loaded the library of 0.1.0 go on.

COMMENT ON TABLE profile_cache.failure IS 'profiles whose document could not be computed or written, so that reads use the view until it can';

ALTER TABLE profile_cache.pending_epoch ADD COLUMN definition pg_catalog.int8;
COMMENT ON COLUMN profile_cache.pending_epoch.definition IS 'a hash of the definition in whose words the link is; under another one everything is concerned';

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

-- Every session looks again.
UPDATE profile_cache.attachment SET problem = problem;
