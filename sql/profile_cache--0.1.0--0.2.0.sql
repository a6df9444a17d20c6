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

CREATE FUNCTION profile_cache.changes_position() RETURNS pg_catalog.xid8 LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS 'SELECT pg_snapshot_xmin(pg_current_snapshot())';
COMMENT ON FUNCTION profile_cache.changes_position() IS 'a number that grows: all older transactions have ended. For changed_since()';
CREATE FUNCTION profile_cache.changed_since(since pg_catalog.xid8) RETURNS SETOF uuid
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'profile_cache_changed_since';
COMMENT ON FUNCTION profile_cache.changed_since(pg_catalog.xid8) IS 'profiles whose document may have changed since changes_position() was this; a null: any may have';

CREATE FUNCTION profile_cache.health() RETURNS TABLE (check_name text, state text, since timestamptz, detail text, advice text)
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 11 AS 'MODULE_PATHNAME', 'profile_cache_health';
COMMENT ON FUNCTION profile_cache.health() IS 'a row for each check: ok, warning or critical, since when, what is so, and what helps';

-- What depends on what.
CREATE FUNCTION profile_cache.routes_rows(
        OUT table_name regclass, OUT watched text[], OUT route text, OUT at_once boolean, OUT everyone boolean, OUT indexes regclass[])
    RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'profile_cache_routes';
COMMENT ON FUNCTION profile_cache.routes_rows() IS 'internal to the view routes';
CREATE VIEW profile_cache.routes AS
    SELECT r.table_name, r.watched::pg_catalog.name[] AS watched, r.route, r.at_once, r.everyone, r.indexes FROM profile_cache.routes_rows() AS r;
COMMENT ON VIEW profile_cache.routes IS 'a row for each way in which the document depends on a table: whose documents a change of it concerns, and when they are computed';
COMMENT ON COLUMN profile_cache.routes.table_name IS 'the table; null where it is gone';
COMMENT ON COLUMN profile_cache.routes.watched IS 'its columns that the view reads this way: an UPDATE of others changes no document';
COMMENT ON COLUMN profile_cache.routes.route IS 'how a changed row leads to profiles, step by step: as a join says it';
COMMENT ON COLUMN profile_cache.routes.at_once IS 'whether the documents are computed when the change commits; else by refresh, and those concerned are read from the view until then';
COMMENT ON COLUMN profile_cache.routes.everyone IS 'whether such a change concerns every profile';
COMMENT ON COLUMN profile_cache.routes.indexes IS 'the indexes by which a reader finds out whether a change that waits for refresh concerns its profile; empty: its own row says so; null: it cannot, and each such change sends all reads to the view';
-- What is counted.
CREATE FUNCTION profile_cache.stats_row(
        OUT hits bigint, OUT misses bigint, OUT miss_reasons jsonb, OUT computed_on_read_ms double precision,
        OUT computed_at_commit bigint, OUT computed_at_commit_ms double precision,
        OUT computed_by_refresh bigint, OUT computed_by_worker bigint,
        OUT pending_keys bigint, OUT pending_epochs bigint, OUT failures bigint, OUT locks_not_had bigint,
        OUT notifications bigint, OUT stats_since timestamptz)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_stats';
COMMENT ON FUNCTION profile_cache.stats_row() IS 'internal to the view stats';
CREATE VIEW profile_cache.stats AS SELECT * FROM profile_cache.stats_row();
COMMENT ON VIEW profile_cache.stats IS 'one row: what has been counted in this database; nulls where nothing is counted';
COMMENT ON COLUMN profile_cache.stats.hits IS 'documents served from the cache';
COMMENT ON COLUMN profile_cache.stats.misses IS 'documents read from the view';
COMMENT ON COLUMN profile_cache.stats.miss_reasons IS 'the misses by reason; and row_security: how often a read had to ask first whether row security shows the row';
COMMENT ON COLUMN profile_cache.stats.computed_on_read_ms IS 'milliseconds that reading the view took';
COMMENT ON COLUMN profile_cache.stats.computed_at_commit IS 'documents that transactions have stored when they committed';
COMMENT ON COLUMN profile_cache.stats.computed_at_commit_ms IS 'milliseconds that locking, computing and storing took them then';
COMMENT ON COLUMN profile_cache.stats.computed_by_refresh IS 'documents that refresh has stored, where somebody called it';
COMMENT ON COLUMN profile_cache.stats.computed_by_worker IS 'documents that the background worker has stored';
COMMENT ON COLUMN profile_cache.stats.pending_keys IS 'single profiles that have been left to refresh';
COMMENT ON COLUMN profile_cache.stats.pending_epochs IS 'changes to many profiles that have been left to refresh';
COMMENT ON COLUMN profile_cache.stats.failures IS 'how often a document could not be computed or written';
COMMENT ON COLUMN profile_cache.stats.locks_not_had IS 'how often a commit or refresh went on without a lock that others held: of a profile''s row, or of tables';
COMMENT ON COLUMN profile_cache.stats.notifications IS 'messages sent on the channel profile_cache';
COMMENT ON COLUMN profile_cache.stats.stats_since IS 'since when all this is counted';
CREATE FUNCTION profile_cache.stats_reset() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_stats_reset';
COMMENT ON FUNCTION profile_cache.stats_reset() IS 'has the counters of this database begin at zero';
GRANT SELECT ON profile_cache.stats TO pg_monitor;
GRANT SELECT ON profile_cache.routes TO pg_monitor;

SELECT profile_cache.set_rights();

-- Every session looks again.
UPDATE profile_cache.attachment SET problem = problem;

COMMENT ON COLUMN profile_cache.status.preloaded IS 'whether the server has preloaded the library, as the background worker needs';
COMMENT ON COLUMN profile_cache.status.worker IS 'what the background worker of this database does, or why there is none';
