-- The SQL surface of profile_cache. Names here are API; every object has a COMMENT.

CREATE SCHEMA profile_cache;
COMMENT ON SCHEMA profile_cache IS 'profile_cache: cached user profiles that are never stale';

-- Which layout of our tables the SQL objects of this version have. The library, which may be another version's, writes
-- into no layout but its own.
CREATE FUNCTION profile_cache.layout() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS 'SELECT 1';
COMMENT ON FUNCTION profile_cache.layout() IS 'the layout of this extension''s tables, for the library to compare with its own';

-- State. pg_dump carries attachment, epoch, pending_epoch, pending_key and failure; epoch_progress, claim, horizon, unmatched_key, reached
-- and last_refresh are one server's or one database's and stay behind. None of it is ever cut off at the end by vacuum, which would
-- take ACCESS EXCLUSIVE, and each read of a standby with it.

CREATE TABLE profile_cache.attachment (
    singleton  boolean              NOT NULL DEFAULT true PRIMARY KEY CHECK (singleton),
    profile    pg_catalog.regclass  NOT NULL,
    document   pg_catalog.regclass  NOT NULL,
    exclude    pg_catalog.name[]    NOT NULL,
    definition pg_catalog.jsonb     NOT NULL,
    problem    pg_catalog.text,
    unsafe     boolean              NOT NULL DEFAULT false
) WITH (vacuum_truncate = off);
COMMENT ON TABLE profile_cache.attachment IS 'what is attached in this database: one row, or none';
COMMENT ON COLUMN profile_cache.attachment.singleton IS 'true: there is one row at most';
COMMENT ON COLUMN profile_cache.attachment.profile IS 'the profile table';
COMMENT ON COLUMN profile_cache.attachment.document IS 'the document view';
COMMENT ON COLUMN profile_cache.attachment.exclude IS 'columns that attach() was told to leave out';
COMMENT ON COLUMN profile_cache.attachment.definition IS 'used tables, columns and routes, by name';
COMMENT ON COLUMN profile_cache.attachment.problem IS 'why nothing is trusted at present; null where all is well';
COMMENT ON COLUMN profile_cache.attachment.unsafe IS 'the problem is that another role could have code run: reads fail';

CREATE TABLE profile_cache.epoch (
    singleton    boolean           NOT NULL DEFAULT true PRIMARY KEY CHECK (singleton),
    current      pg_catalog.int8   NOT NULL,
    trusted_from pg_catalog.int8   NOT NULL
)
-- Every read and every commit looks at it: one page, and room on it for the versions that an old snapshot
-- keeps.
WITH (fillfactor = 10, vacuum_truncate = off, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE profile_cache.epoch IS 'the current epoch: one row, only ever updated in place';
COMMENT ON COLUMN profile_cache.epoch.singleton IS 'true: there is one row at most';
COMMENT ON COLUMN profile_cache.epoch.current IS 'the current epoch: what is computed now is stamped with it';
COMMENT ON COLUMN profile_cache.epoch.trusted_from IS 'stamps below are of another definition of the document, or of another attachment';

CREATE TABLE profile_cache.pending_epoch (
    id           pg_catalog.uuid        NOT NULL DEFAULT pg_catalog.gen_random_uuid() PRIMARY KEY,
    epoch        pg_catalog.int8,
    redefined    boolean                NOT NULL,
    apply        boolean                NOT NULL,
    about        pg_catalog.oid[],
    reason       pg_catalog.text        NOT NULL,
    link_schema  pg_catalog.name,
    link_table   pg_catalog.name,
    link_columns pg_catalog.name[],
    link_values  pg_catalog.text[],
    horizon      pg_catalog.int8        NOT NULL DEFAULT 9223372036854775807,
    written_by   pg_catalog.xid8        NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    created_at   pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    definition   pg_catalog.int8
) WITH (vacuum_truncate = off, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);
CREATE INDEX pending_epoch_horizon ON profile_cache.pending_epoch (horizon);
COMMENT ON INDEX profile_cache.pending_epoch_horizon IS 'what is pending, past what only old snapshots still keep';
COMMENT ON TABLE profile_cache.pending_epoch IS 'changes that may concern many profiles, and that refresh has still to follow';
COMMENT ON COLUMN profile_cache.pending_epoch.id IS 'the row''s name';
COMMENT ON COLUMN profile_cache.pending_epoch.epoch IS 'its number; null until refresh assigns it';
COMMENT ON COLUMN profile_cache.pending_epoch.redefined IS 'the document''s definition has changed, in older snapshots too';
COMMENT ON COLUMN profile_cache.pending_epoch.apply IS 'logical replication, or whoever wrote while our tables were out of sight, may have something under way of which nothing speaks: it gets no number before that is over';
COMMENT ON COLUMN profile_cache.pending_epoch.about IS 'objects of DDL of which nobody knows yet whether it concerns the document: it gets no number before that; null otherwise';
COMMENT ON COLUMN profile_cache.pending_epoch.reason IS 'what happened';
COMMENT ON COLUMN profile_cache.pending_epoch.horizon IS 'the next transaction id when it was written, or more';
COMMENT ON COLUMN profile_cache.pending_epoch.written_by IS 'the transaction that wrote it, not a part of it that a savepoint began';
COMMENT ON COLUMN profile_cache.pending_epoch.link_schema IS 'schema of the changed table; null: everything is concerned';
COMMENT ON COLUMN profile_cache.pending_epoch.link_table IS 'the changed table';
COMMENT ON COLUMN profile_cache.pending_epoch.link_columns IS 'its columns that lead towards the profiles';
COMMENT ON COLUMN profile_cache.pending_epoch.link_values IS 'old and new values of those columns in the changed rows, row after row';
COMMENT ON COLUMN profile_cache.pending_epoch.created_at IS 'when the transaction that changed something began';
COMMENT ON COLUMN profile_cache.pending_epoch.definition IS 'a hash of the definition in whose words the link is; under another one everything is concerned';

CREATE TABLE profile_cache.pending_key (
    id          pg_catalog.uuid        NOT NULL DEFAULT pg_catalog.gen_random_uuid() PRIMARY KEY,
    key_set     pg_catalog.int8        NOT NULL,
    key_hash    pg_catalog.int8        NOT NULL,
    reason      pg_catalog.text        NOT NULL,
    key_columns pg_catalog.name[]      NOT NULL,
    key_values  pg_catalog.text[]      NOT NULL,
    created_at  pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now()
) WITH (vacuum_truncate = off, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);
CREATE INDEX pending_key_probe ON profile_cache.pending_key (key_set, key_hash);
COMMENT ON TABLE profile_cache.pending_key IS 'single profiles that are not to be trusted until refresh has computed them';
COMMENT ON COLUMN profile_cache.pending_key.id IS 'the row''s name';
COMMENT ON COLUMN profile_cache.pending_key.key_set IS 'a hash of key_columns';
COMMENT ON COLUMN profile_cache.pending_key.key_hash IS 'a hash of key_values; 0 where equal values may have different texts';
COMMENT ON COLUMN profile_cache.pending_key.reason IS 'what happened';
COMMENT ON COLUMN profile_cache.pending_key.key_columns IS 'the profile table''s columns that name the profile';
COMMENT ON COLUMN profile_cache.pending_key.key_values IS 'their values';
COMMENT ON COLUMN profile_cache.pending_key.created_at IS 'when the transaction that changed something began';
COMMENT ON INDEX profile_cache.pending_key_probe IS 'a read looks here for the profile that it reads';

CREATE VIEW profile_cache.pending AS
    SELECT p.id, 'epoch'::pg_catalog.text AS kind, p.epoch, p.reason, p.link_schema, p.link_table, p.link_columns, p.link_values,
           NULL::pg_catalog.name[] AS key_columns, NULL::pg_catalog.text[] AS key_values, p.created_at
    FROM profile_cache.pending_epoch AS p
    UNION ALL
    SELECT k.id, 'key', NULL, k.reason, NULL, NULL, NULL, NULL, k.key_columns, k.key_values, k.created_at
    FROM profile_cache.pending_key AS k;
COMMENT ON VIEW profile_cache.pending IS 'what refresh has still to do';
COMMENT ON COLUMN profile_cache.pending.id IS 'the row''s name';
COMMENT ON COLUMN profile_cache.pending.kind IS 'epoch: a change that may concern many profiles; key: one profile';
COMMENT ON COLUMN profile_cache.pending.epoch IS 'of an epoch: its number; null until refresh assigns it';
COMMENT ON COLUMN profile_cache.pending.reason IS 'what happened';
COMMENT ON COLUMN profile_cache.pending.link_schema IS 'of an epoch: schema of the changed table; null: everything is concerned';
COMMENT ON COLUMN profile_cache.pending.link_table IS 'the changed table';
COMMENT ON COLUMN profile_cache.pending.link_columns IS 'its columns that lead towards the profiles';
COMMENT ON COLUMN profile_cache.pending.link_values IS 'old and new values of those columns in the changed rows, row after row';
COMMENT ON COLUMN profile_cache.pending.key_columns IS 'of a key: the profile table''s columns that name the profile';
COMMENT ON COLUMN profile_cache.pending.key_values IS 'their values';
COMMENT ON COLUMN profile_cache.pending.created_at IS 'when the transaction that changed something began';

CREATE TABLE profile_cache.epoch_progress (
    epoch        pg_catalog.int8 NOT NULL PRIMARY KEY,
    holders      pg_catalog.text[],
    server_start pg_catalog.timestamptz,
    running      boolean         NOT NULL DEFAULT false,
    alive        pg_catalog.int8,
    position     pg_catalog.uuid,
    pass         pg_catalog.uuid,
    began_xmin   pg_catalog.xid8,
    passed_xmin  pg_catalog.xid8,
    listed       pg_catalog.uuid,
    listed_to    pg_catalog.uuid
) WITH (vacuum_truncate = off);
COMMENT ON TABLE profile_cache.epoch_progress IS 'how far refresh is with each pending epoch';
COMMENT ON COLUMN profile_cache.epoch_progress.epoch IS 'the pending epoch';
COMMENT ON COLUMN profile_cache.epoch_progress.holders IS 'virtual transactions that may have missed it';
COMMENT ON COLUMN profile_cache.epoch_progress.server_start IS 'the run of the server in which they were noted';
COMMENT ON COLUMN profile_cache.epoch_progress.running IS 'a pass is under way';
COMMENT ON COLUMN profile_cache.epoch_progress.alive IS 'how many of the holders were there when it began; 0: it is the last one';
COMMENT ON COLUMN profile_cache.epoch_progress.position IS 'the last key it has done, where it is not listed';
COMMENT ON COLUMN profile_cache.epoch_progress.pass IS 'which pass it is';
COMMENT ON COLUMN profile_cache.epoch_progress.began_xmin IS 'xmin of the snapshot it began with';
COMMENT ON COLUMN profile_cache.epoch_progress.passed_xmin IS 'row versions of an older xmin are no longer concerned';
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

CREATE TABLE profile_cache.horizon (
    singleton    boolean         NOT NULL DEFAULT true PRIMARY KEY CHECK (singleton),
    pending_from pg_catalog.int8 NOT NULL
) WITH (fillfactor = 10, vacuum_truncate = off, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE profile_cache.horizon IS 'from where on something is pending: none or one row, by transaction ids of this server';
COMMENT ON COLUMN profile_cache.horizon.singleton IS 'true: there is one row at most';
COMMENT ON COLUMN profile_cache.horizon.pending_from IS 'no pending epoch with a horizon below is left, nor will one come';

CREATE TABLE profile_cache.unmatched_key (
    pending      pg_catalog.uuid        NOT NULL PRIMARY KEY,
    holders      pg_catalog.text[]      NOT NULL,
    server_start pg_catalog.timestamptz NOT NULL
) WITH (vacuum_truncate = off);
COMMENT ON TABLE profile_cache.unmatched_key IS 'pending keys that no visible row had when refresh first looked, and what logical replication may have under way';
COMMENT ON COLUMN profile_cache.unmatched_key.pending IS 'the pending row''s id';
COMMENT ON COLUMN profile_cache.unmatched_key.holders IS 'virtual transactions that may still bring the row, or another change';
COMMENT ON COLUMN profile_cache.unmatched_key.server_start IS 'the run of the server in which they were noted';

CREATE TABLE profile_cache.reached (
    server  pg_catalog.int8 NOT NULL,
    classid pg_catalog.oid  NOT NULL,
    objid   pg_catalog.oid  NOT NULL,
    shown   boolean         NOT NULL,
    PRIMARY KEY (server, objid, classid)
) WITH (vacuum_truncate = off);
COMMENT ON TABLE profile_cache.reached IS 'everything whose DDL may concern the document, and the database itself';
COMMENT ON COLUMN profile_cache.reached.server IS 'the database cluster''s system identifier: elsewhere these numbers mean nothing';
COMMENT ON COLUMN profile_cache.reached.classid IS 'the catalog that lists the object';
COMMENT ON COLUMN profile_cache.reached.objid IS 'its number there';
COMMENT ON COLUMN profile_cache.reached.shown IS 'whether its DDL can change a document; else only what is proven, or whose code runs';

CREATE TABLE profile_cache.failure (
    user_id   pg_catalog.uuid        NOT NULL,
    sqlstate  pg_catalog.text        NOT NULL,
    failed_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    attempts  pg_catalog.int4        NOT NULL DEFAULT 1,
    retry_at  pg_catalog.timestamptz
) WITH (vacuum_truncate = off);
COMMENT ON TABLE profile_cache.failure IS 'profiles whose document could not be computed or written, so that reads use the view until it can';
COMMENT ON COLUMN profile_cache.failure.user_id IS 'the profile''s key';
COMMENT ON COLUMN profile_cache.failure.sqlstate IS 'the error''s SQLSTATE; its message may hold profile data and is not kept';
COMMENT ON COLUMN profile_cache.failure.failed_at IS 'when the transaction that computed it began';
COMMENT ON COLUMN profile_cache.failure.attempts IS 'how often it has been tried';
COMMENT ON COLUMN profile_cache.failure.retry_at IS 'when refresh tries it again; null: the next time. A change of the profile tries it at once';

CREATE TABLE profile_cache.last_refresh (
    singleton    boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (singleton),
    began_at     pg_catalog.timestamptz NOT NULL,
    completed_at pg_catalog.timestamptz,
    outcome      pg_catalog.text,
    looked_to    pg_catalog.uuid
) WITH (fillfactor = 10, vacuum_truncate = off, autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE profile_cache.last_refresh IS 'one row: when refresh was last called, and whether it came to its end';
COMMENT ON COLUMN profile_cache.last_refresh.singleton IS 'true: there is one row';
COMMENT ON COLUMN profile_cache.last_refresh.began_at IS 'when the last call began';
COMMENT ON COLUMN profile_cache.last_refresh.completed_at IS 'when one last came to its end; null: never. Earlier than began_at: the last call is under way, has left something undone, or was cut short';
COMMENT ON COLUMN profile_cache.last_refresh.outcome IS 'what the last call left undone, and why; null: nothing, as far as it came';
COMMENT ON COLUMN profile_cache.last_refresh.looked_to IS 'how far refresh has looked through the profile table for what nothing pending speaks of; null: from the beginning';

SELECT pg_catalog.pg_extension_config_dump('profile_cache.attachment', '');
SELECT pg_catalog.pg_extension_config_dump('profile_cache.epoch', '');
SELECT pg_catalog.pg_extension_config_dump('profile_cache.pending_epoch', '');
SELECT pg_catalog.pg_extension_config_dump('profile_cache.pending_key', '');
SELECT pg_catalog.pg_extension_config_dump('profile_cache.failure', '');

CREATE FUNCTION profile_cache.attachment_changed() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_attachment_changed';
COMMENT ON FUNCTION profile_cache.attachment_changed() IS 'trigger: makes every backend forget its copy of the attachment';
CREATE TRIGGER attachment_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON profile_cache.attachment
    FOR EACH STATEMENT EXECUTE FUNCTION profile_cache.attachment_changed();
ALTER TABLE profile_cache.attachment ENABLE ALWAYS TRIGGER attachment_changed;
COMMENT ON TRIGGER attachment_changed ON profile_cache.attachment IS 'makes every backend forget its copy of the attachment';

-- The triggers that attach() puts on the app's tables.

CREATE FUNCTION profile_cache.distrust() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_distrust';
COMMENT ON FUNCTION profile_cache.distrust() IS 'trigger: keeps the cache columns from being written by statements, and distrusts a changed row';
CREATE FUNCTION profile_cache.before_statement() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_before_statement';
COMMENT ON FUNCTION profile_cache.before_statement() IS 'trigger: marks a statement on a used table as in flight';
CREATE FUNCTION profile_cache.after_statement() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_after_statement';
COMMENT ON FUNCTION profile_cache.after_statement() IS 'trigger: remembers what a statement touched, to be computed when the transaction commits, or leaves it pending';

-- Reading.

CREATE FUNCTION @extschema@.get_profile(user_id uuid) RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'profile_cache_get_profile';
COMMENT ON FUNCTION @extschema@.get_profile(uuid) IS 'the profile document of a user: the cached one where it is provably fresh, else the view''s; null for an unknown user';
CREATE FUNCTION @extschema@.get_profiles(user_ids uuid[]) RETURNS TABLE (user_id uuid, profile jsonb)
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'profile_cache_get_profiles';
COMMENT ON FUNCTION @extschema@.get_profiles(uuid[]) IS 'get_profile for each of these users, in this order';
CREATE FUNCTION profile_cache.explain(user_id uuid) RETURNS jsonb
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'profile_cache_explain';
COMMENT ON FUNCTION profile_cache.explain(uuid) IS 'where get_profile would take this user''s document from, and why';
CREATE FUNCTION profile_cache.changes_position() RETURNS pg_catalog.xid8 LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp AS 'SELECT pg_snapshot_xmin(pg_current_snapshot())';
COMMENT ON FUNCTION profile_cache.changes_position() IS 'a number that grows: all older transactions have ended. For changed_since()';
CREATE FUNCTION profile_cache.changed_since(since pg_catalog.xid8) RETURNS SETOF uuid
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'profile_cache_changed_since';
COMMENT ON FUNCTION profile_cache.changed_since(pg_catalog.xid8) IS 'profiles whose document may have changed since changes_position() was this; a null: any may have';
CREATE FUNCTION profile_cache.iso8601(at timestamptz) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'profile_cache_iso8601';
COMMENT ON FUNCTION profile_cache.iso8601(timestamptz) IS 'a timestamp in UTC as Django REST framework prints it';

-- Managing.

CREATE FUNCTION profile_cache.attach(profile regclass DEFAULT NULL, key name DEFAULT 'supabase_user_id',
        document regclass DEFAULT NULL, exclude name[] DEFAULT '{}') RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_attach';
COMMENT ON FUNCTION profile_cache.attach(regclass, name, regclass, name[]) IS 'puts cache columns and triggers on the profile table and the tables its document uses; repeatable';
CREATE FUNCTION profile_cache.detach(drop_columns boolean DEFAULT true) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_detach';
COMMENT ON FUNCTION profile_cache.detach(boolean) IS 'takes triggers, columns and the generated view away again; repeatable';
CREATE FUNCTION profile_cache.invalidate(user_id uuid) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_invalidate';
COMMENT ON FUNCTION profile_cache.invalidate(uuid) IS 'distrusts one cached document until it is refreshed';
CREATE FUNCTION profile_cache.invalidate_all() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_invalidate_all';
COMMENT ON FUNCTION profile_cache.invalidate_all() IS 'distrusts every cached document until it is refreshed';
-- Unsafe in parallel: what the view raises is contained in a subtransaction, which none may begin there.
CREATE FUNCTION profile_cache.verify(sample bigint DEFAULT NULL)
        RETURNS TABLE (user_id uuid, problem text, served jsonb, expected jsonb)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_verify';
COMMENT ON FUNCTION profile_cache.verify(bigint) IS 'compares cached documents with the view, and names profiles for which that fails; no rows is good';

CREATE FUNCTION profile_cache.refresh_begin(batch_size integer) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_refresh_begin';
COMMENT ON FUNCTION profile_cache.refresh_begin(integer) IS 'internal to refresh(): raises what would keep it from running; about how many profiles there are';
CREATE FUNCTION profile_cache.refresh_step(batch_size integer, INOUT phase text, INOUT course text, OUT stored bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_refresh_step';
COMMENT ON FUNCTION profile_cache.refresh_step(integer, text, text) IS 'internal to refresh(): one short transaction''s work; the caller commits';

-- No SET clause and no SECURITY DEFINER: either would keep it from committing. So every name, type and
-- operator is qualified: it runs in its caller's search_path, where pg_temp comes first. Each transaction is
-- READ COMMITTED and READ WRITE whatever the defaults.
CREATE PROCEDURE profile_cache.refresh(batch_size integer DEFAULT 5000)
    LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    step    pg_catalog.record;
    phase   pg_catalog.text := 'begin';
    course  pg_catalog.text;
    done    pg_catalog.int8 := 0;
    said    pg_catalog.int8 := 0;
    total   pg_catalog.int8;
    started pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    last    pg_catalog.timestamptz := started;
BEGIN
    total := profile_cache.refresh_begin(batch_size);
    COMMIT;
    LOOP
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
        SELECT s.* INTO step FROM profile_cache.refresh_step(batch_size, phase, course) AS s;
        phase := step.phase;
        course := step.course;
        done := done OPERATOR(pg_catalog.+) step.stored;
        -- Once a second, and in the end.
        IF done OPERATOR(pg_catalog.>) said AND (phase OPERATOR(pg_catalog.=) 'done'
            OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) last OPERATOR(pg_catalog.>) '1 s'::pg_catalog.interval)
        THEN
            last := pg_catalog.clock_timestamp();
            said := done;
            RAISE NOTICE 'documents refreshed: % of about %, % a second', done, GREATEST(done, total),
                pg_catalog.round(done::pg_catalog.numeric OPERATOR(pg_catalog./) GREATEST(0.001,
                    EXTRACT(epoch FROM last OPERATOR(pg_catalog.-) started)));
        END IF;
        EXIT WHEN phase OPERATOR(pg_catalog.=) 'done';
        COMMIT;
    END LOOP;
    COMMIT;
END
$$;
COMMENT ON PROCEDURE profile_cache.refresh(integer) IS 'fills and drains the cache in committed batches, until nothing stale is left that can be made fresh now';

-- Watching.

CREATE FUNCTION profile_cache.status_row(
        OUT profile text, OUT document text, OUT tables text[],
        OUT rows bigint, OUT cached bigint, OUT stale bigint, OUT counts_exact boolean,
        OUT pending_keys bigint, OUT pending_epochs bigint, OUT oldest_pending timestamptz,
        OUT held_up_by text[], OUT disabled_triggers text[], OUT failures bigint,
        OUT enabled boolean, OUT preloaded boolean, OUT worker text,
        OUT last_refresh timestamptz, OUT last_refresh_outcome text, OUT warnings text[])
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'profile_cache_status';
COMMENT ON FUNCTION profile_cache.status_row() IS 'internal to the view status';
CREATE VIEW profile_cache.status AS SELECT * FROM profile_cache.status_row();
COMMENT ON VIEW profile_cache.status IS 'one row: what is attached, how much of it is cached, what is pending and why, warnings';
COMMENT ON COLUMN profile_cache.status.profile IS 'the profile table';
COMMENT ON COLUMN profile_cache.status.document IS 'the document view';
COMMENT ON COLUMN profile_cache.status.tables IS 'the tables whose changes are followed';
COMMENT ON COLUMN profile_cache.status.rows IS 'profiles in all';
COMMENT ON COLUMN profile_cache.status.cached IS 'profiles whose stored document a reader beginning now would be served';
COMMENT ON COLUMN profile_cache.status.stale IS 'the others: reads of them use the view';
COMMENT ON COLUMN profile_cache.status.counts_exact IS 'false where the three counts are estimates from a sample';
COMMENT ON COLUMN profile_cache.status.pending_keys IS 'single profiles that wait for refresh';
COMMENT ON COLUMN profile_cache.status.pending_epochs IS 'changes to many profiles that wait for refresh';
COMMENT ON COLUMN profile_cache.status.oldest_pending IS 'since when the oldest of them waits';
COMMENT ON COLUMN profile_cache.status.held_up_by IS 'transactions whose end the last pass of refresh waits for';
COMMENT ON COLUMN profile_cache.status.disabled_triggers IS 'triggers that are missing or not ENABLE ALWAYS';
COMMENT ON COLUMN profile_cache.status.failures IS 'profiles whose document could not be computed or written (at most 1000 are remembered)';
COMMENT ON COLUMN profile_cache.status.enabled IS 'profile_cache.enabled in this session';
COMMENT ON COLUMN profile_cache.status.preloaded IS 'whether the server has preloaded the library, as the background worker needs';
COMMENT ON COLUMN profile_cache.status.worker IS 'what the background worker of this database does, or why there is none';
COMMENT ON COLUMN profile_cache.status.last_refresh IS 'when refresh last came through; null: never';
COMMENT ON COLUMN profile_cache.status.last_refresh_outcome IS 'what its last call left undone, and why';
COMMENT ON COLUMN profile_cache.status.warnings IS 'what wants attention, and what to do';

CREATE FUNCTION profile_cache.health() RETURNS TABLE (check_name text, state text, since timestamptz, detail text, advice text)
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 11 AS 'MODULE_PATHNAME', 'profile_cache_health';
COMMENT ON FUNCTION profile_cache.health() IS 'a row for each check: ok, warning or critical, since when, what is so, and what helps';
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

-- DDL on what the document depends on.

CREATE FUNCTION profile_cache.on_ddl() RETURNS event_trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_on_ddl';
COMMENT ON FUNCTION profile_cache.on_ddl() IS 'event trigger: distrusts everything when DDL touches what the document depends on';
-- Rights: whoever may read the profile may read its document; the rest is for the extension's owner and
-- the tables'. Whatever default privileges have given is taken back. Again at each attach(), and where the
-- extension gets another owner.

CREATE FUNCTION profile_cache.set_rights() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'profile_cache_set_rights';
COMMENT ON FUNCTION profile_cache.set_rights() IS 'internal: grants what is to be granted on the extension''s objects, and revokes all else';
SELECT profile_cache.set_rights();

CREATE EVENT TRIGGER profile_cache_ddl ON ddl_command_end EXECUTE FUNCTION profile_cache.on_ddl();
CREATE EVENT TRIGGER profile_cache_drop ON sql_drop EXECUTE FUNCTION profile_cache.on_ddl();
ALTER EVENT TRIGGER profile_cache_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER profile_cache_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER profile_cache_ddl IS 'distrusts everything when DDL touches what the document depends on';
COMMENT ON EVENT TRIGGER profile_cache_drop IS 'distrusts everything when something is dropped that the document depends on';
