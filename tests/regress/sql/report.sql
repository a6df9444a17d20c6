-- verify(), explain() and status tell the truth: a wrong document that would be trusted is
-- found, what is not trusted is no problem, and each state that wants attention is named.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
\pset tuples_only off
\pset footer off
CREATE EXTENSION profile_cache;
\set status 'SELECT rows, cached, stale, counts_exact, pending_keys AS keys, pending_epochs AS epochs, oldest_pending <= now() AS since, held_up_by, disabled_triggers, failures, enabled, preloaded, untimed(warnings) AS warnings FROM profile_cache.status \\gx'
\set ECHO all

-- status: nothing attached, just attached, cached.
SELECT * FROM profile_cache.status \gx
SELECT profile_cache.attach();
:status
CALL profile_cache.refresh();
INSERT INTO profile_cache.last_refresh (began_at, completed_at) VALUES (now(), now()) ON CONFLICT DO NOTHING;
SELECT profile, document, tables, worker FROM profile_cache.status \gx
:status
-- Pending, and since when.
SELECT profile_cache.invalidate(u(1)), profile_cache.invalidate(u(77));
UPDATE role SET name = 'boss' WHERE id = 1;
:status
CALL profile_cache.refresh();
-- A disabled trigger, the setting, a transaction that holds refresh up.
ALTER TABLE user_role DISABLE TRIGGER profile_cache_update;
SET profile_cache.enabled = off;
:status
RESET profile_cache.enabled;
ALTER TABLE user_role ENABLE ALWAYS TRIGGER profile_cache_update;
CALL profile_cache.refresh();
BEGIN;
UPDATE user_profile SET note = 'prepared' WHERE id = 5;
PREPARE TRANSACTION 'regress_holder';
UPDATE role SET name = 'chief' WHERE id = 1;
CALL profile_cache.refresh();
:status
SELECT state();
SELECT * FROM wrong();
ROLLBACK PREPARED 'regress_holder';
:status
CALL profile_cache.refresh();
:status
SELECT state();

-- explain: in every case, and never more than the row's columns say.
CREATE FUNCTION explained(n int) RETURNS TABLE (served_from text, reason text, epoch text, valid_until text, updated_at text, bytes text) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT e ->> 'served_from', e ->> 'reason',
        CASE WHEN e ->> 'epoch' IS NOT NULL THEN 'some' END, e ->> 'valid_until',
        CASE WHEN (e ->> 'updated_at')::timestamptz <= now() THEN 'some' END, CASE WHEN (e ->> 'bytes')::int > 0 THEN 'some' END
    FROM profile_cache.explain(u(n)) AS e;
END $$;
SELECT * FROM explained(1);
SELECT * FROM explained(2);
SELECT * FROM explained(99);
SELECT profile_cache.invalidate(u(2));
SELECT * FROM explained(2);
SET profile_cache.max_immediate = 0;
UPDATE user_profile SET note = 'not cached' WHERE id = 3;
RESET profile_cache.max_immediate;
SELECT * FROM explained(3);
CALL profile_cache.refresh();
SET profile_cache.enabled = off;
SELECT * FROM explained(1);
RESET profile_cache.enabled;
SELECT (e ->> 'bytes')::int = pg_column_size(p.cached_profile), (e ->> 'epoch')::bigint = p.cached_profile_epoch, e ->> 'updated_at' = profile_cache.iso8601(p.profile_cache_updated_at)
FROM user_profile AS p, profile_cache.explain(p.supabase_user_id) AS e WHERE p.id = 1;
SELECT jsonb_object_keys(profile_cache.explain(u(1))) ORDER BY 1;

-- verify: a document planted below the triggers, as a defect of ours would leave it.
CREATE PROCEDURE plant(n int, document jsonb) LANGUAGE plpgsql AS $$
DECLARE t text;
BEGIN
    ALTER TABLE user_profile DISABLE TRIGGER USER;
    UPDATE user_profile SET cached_profile = document WHERE id = n;
    FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = 'user_profile'::regclass AND NOT tgisinternal LOOP
        EXECUTE format('ALTER TABLE user_profile ENABLE ALWAYS TRIGGER %I', t);
    END LOOP;
    -- The DDL above distrusts everything: forget that.
    DELETE FROM profile_cache.pending_epoch;
END $$;
CALL plant(3, '{"planted": true}');
CALL plant(4, NULL);
SELECT user_id, problem, served, expected ->> 'email' AS expected FROM profile_cache.verify();
SELECT user_id, problem, served, expected ->> 'email' AS expected FROM profile_cache.verify(5) ORDER BY user_id;
SELECT count(*) FROM profile_cache.verify(1000000);
-- A sample starts anywhere: a problem is found after enough of them; and it is never more than there is.
DO $$ BEGIN FOR i IN 1 .. 500 LOOP IF EXISTS (SELECT FROM profile_cache.verify(1) AS v WHERE v.user_id = u(4)) THEN RETURN; END IF; END LOOP; RAISE EXCEPTION 'it was never in the sample'; END $$;
SELECT max(n) <= 2 FROM (SELECT (SELECT count(*) FROM profile_cache.verify(i)) AS n FROM generate_series(1, 60) AS i) AS s;
-- Equal as jsonb but not to the byte is a problem too.
SELECT jsonb_set(document, '{ai_daily_limit}', '5.0') AS other FROM profile_document WHERE supabase_user_id = u(3) \gset
SELECT document FROM profile_document WHERE supabase_user_id = u(4) \gset
CALL plant(3, :'other');
CALL plant(4, :'document');
SELECT user_id, problem, served -> 'ai_daily_limit' AS served, expected -> 'ai_daily_limit' AS expected FROM profile_cache.verify();
-- What no reader would be served is no problem.
CALL plant(3, '{"planted": true}');
SELECT profile_cache.invalidate(u(3));
SELECT * FROM profile_cache.verify();
CALL profile_cache.refresh();
SELECT * FROM profile_cache.verify();
CALL plant(3, '{"planted": true}');
SET profile_cache.enabled = off;
SELECT count(*) FROM profile_cache.verify();
RESET profile_cache.enabled;
-- A write of any used column, a refresh of the profile or of all mends it.
UPDATE user_profile SET note = 'mended' WHERE id = 3;
SELECT * FROM profile_cache.verify();

-- The row of the current epoch is lost: nothing is trusted, status says what to do, and that mends it.
TRUNCATE profile_cache.epoch;
SELECT profile_cache.explain(u(3)) ->> 'served_from' AS served_from;
CALL profile_cache.refresh();
:status
SELECT profile_cache.attach();
CALL profile_cache.refresh();
SELECT profile_cache.explain(u(3)) ->> 'served_from' AS served_from;
SELECT cached, warnings FROM profile_cache.status;
SELECT * FROM profile_cache.verify();

-- A large table: counts from a sample, said to be so.
INSERT INTO user_profile (id, supabase_user_id, note) SELECT n, u(n), repeat('x', 1800) FROM generate_series(1001, 13000) AS n;
ANALYZE user_profile;
SELECT counts_exact, rows BETWEEN 10000 AND 14000 AS rows, cached < 100 AS cached, stale BETWEEN 10000 AND 14000 AS stale FROM profile_cache.status;
-- A refresh writes every row once more: twice the blocks, and not twice the profiles, whatever ANALYZE has seen.
CALL profile_cache.refresh();
SELECT counts_exact, rows BETWEEN 10000 AND 14000 AS rows, cached BETWEEN 10000 AND 14000 AS cached, stale < 100 AS stale FROM profile_cache.status;
