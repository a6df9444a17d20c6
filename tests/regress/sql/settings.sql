-- Every setting that a session may change is either pinned where documents are computed, or known not
-- to change one (src/rights.md, "Which settings are pinned"). One that a later release brings fails
-- here until somebody has decided; one that is no longer pinned would store wrong documents for good.
\set VERBOSITY terse
CREATE EXTENSION profile_cache;

-- What is pinned, to which value, and another one.
CREATE TABLE pinned (name text PRIMARY KEY, value text NOT NULL, other text NOT NULL);
INSERT INTO pinned VALUES
    ('TimeZone', 'UTC', 'America/New_York'), ('DateStyle', 'ISO, MDY', 'SQL, DMY'), ('IntervalStyle', 'postgres', 'iso_8601'),
    ('timezone_abbreviations', 'Default', 'India'), ('extra_float_digits', '1', '-15'), ('bytea_output', 'hex', 'escape'),
    ('array_nulls', 'on', 'off'), ('xmlbinary', 'base64', 'hex'), ('xmloption', 'content', 'document'), ('quote_all_identifiers', 'off', 'on'),
    ('lc_monetary', 'C', 'POSIX'), ('lc_numeric', 'C', 'POSIX'), ('lc_time', 'C', 'POSIX'),
    ('default_text_search_config', 'pg_catalog.simple', 'pg_catalog.english'),
    ('standard_conforming_strings', 'on', 'off'), ('backslash_quote', 'safe_encoding', 'on'), ('transform_null_equals', 'off', 'on'),
    ('gin_fuzzy_search_limit', '0', '1'), ('synchronize_seqscans', 'off', 'on'), ('jit', 'off', 'on'),
    ('row_security', 'on', 'off'), ('restrict_nonsystem_relation_kind', '', 'view'), ('exit_on_error', 'off', 'on'),
    ('composite_type_mismatch', 'error', 'warn'), ('search_path', 'pg_catalog, pg_temp', 'public');

-- What is not, by the reason.
CREATE TABLE harmless (names text NOT NULL, why text NOT NULL);
INSERT INTO harmless VALUES
    ('application_name client_min_messages lc_messages backtrace_functions trace_notify trace_sort debug_pretty_print', 'what is said, not what is computed'),
    ('client_encoding', 'converts what is sent'),
    ('work_mem hash_mem_multiplier temp_buffers maintenance_work_mem logical_decoding_work_mem vacuum_buffer_usage_limit', 'memory: the plan, and when to spill'),
    ('backend_flush_after effective_io_concurrency maintenance_io_concurrency io_combine_limit file_copy_method '
     'max_parallel_workers max_parallel_workers_per_gather max_parallel_maintenance_workers parallel_leader_participation '
     'force_parallel_mode debug_parallel_query jit_expressions jit_tuple_deforming jit_dump_bitcode jit_debugging_support '
     'jit_profiling_support ignore_system_indexes debug_discard_caches post_auth_delay', 'how it runs, not what comes out'),
    ('statement_timeout lock_timeout transaction_timeout idle_in_transaction_session_timeout idle_session_timeout deadlock_timeout', 'the caller''s own limit on time'),
    ('temp_file_limit max_stack_depth temp_tablespaces', 'limits that the administrator set'),
    ('transaction_isolation transaction_read_only transaction_deferrable default_transaction_isolation '
     'default_transaction_read_only default_transaction_deferrable', 'the transaction''s own, or the next one''s'),
    ('session_replication_role event_triggers', 'which triggers fire: no query does'),
    ('check_function_bodies default_tablespace default_table_access_method createrole_self_grant icu_validation_level '
     'allow_system_table_mods allow_in_place_tablespaces dynamic_library_path extension_control_path extension_destdir '
     'local_preload_libraries session_preload_libraries gin_pending_list_limit', 'DDL, and which files are loaded'),
    ('default_toast_compression', 'how it is stored, not what it says'),
    ('escape_string_warning', 'says nothing while standard_conforming_strings is on'),
    ('lo_compat_privileges', 'large objects are read by VOLATILE functions'),
    ('zero_damaged_pages ignore_checksum_failure wal_consistency_checking', 'damage, in pages that all sessions share'),
    ('vacuum_failsafe_age vacuum_freeze_min_age vacuum_freeze_table_age vacuum_multixact_failsafe_age '
     'vacuum_multixact_freeze_min_age vacuum_multixact_freeze_table_age', 'VACUUM'),
    ('debug_logical_replication_streaming', 'replication'),
    ('plpgsql.check_asserts plpgsql.extra_errors plpgsql.extra_warnings plpgsql.print_strict_params plpgsql.variable_conflict', 'views reach no PL/pgSQL'),
    ('profile_cache.compute profile_cache.enabled profile_cache.max_immediate profile_cache.notify profile_cache.track', 'ours'),
    -- Only in builds for developers.
    ('debug_copy_parse_plan_trees debug_raw_expression_coverage_test debug_write_read_parse_plan_trees debug_deadlocks '
     'log_btree_build_stats trace_lock_oidmin trace_lock_table trace_locks trace_lwlocks trace_syncscan trace_userlocks wal_debug', 'builds for developers');

SELECT profile_cache.iso8601('2024-05-01 14:00:00+02');
LOAD 'plpgsql';

-- No rows: settings that nobody has decided about.
SELECT s.name, s.context, s.category, s.short_desc
FROM pg_settings AS s
WHERE s.context IN ('user', 'superuser', 'backend', 'superuser-backend')
  AND s.name NOT IN (SELECT name FROM pinned)
  AND s.name NOT IN (SELECT regexp_split_to_table(names, ' ') FROM harmless)
  AND s.category !~ '^(Query Tuning|Reporting and Logging|Statistics|Vacuuming|Resource Usage / Cost-Based Vacuum Delay|Write-Ahead Log|Replication|Connections and Authentication) ?'
ORDER BY s.name COLLATE "C";

-- No rows either: settings that a document sees as the session has them. An internal function that says
-- IMMUTABLE is believed, so that this one shows what is in force where a view is read (not where it is
-- planned: its argument is no constant).
CREATE TABLE user_profile (id int PRIMARY KEY, supabase_user_id uuid NOT NULL UNIQUE, n int);
INSERT INTO user_profile VALUES (1, '00000000-0000-0000-0000-000000000001', 0);
CREATE FUNCTION seen(name text, missing_ok boolean) RETURNS text LANGUAGE internal IMMUTABLE AS 'show_config_by_name_missing_ok';
SELECT format('CREATE VIEW seen_document AS SELECT p.supabase_user_id, jsonb_build_object(''n'', p.n, %s) AS document FROM user_profile AS p',
              string_agg(format('%L, seen(%L, p.n >= 0)', name, name), ', ' ORDER BY name)) FROM pinned \gexec
SELECT profile_cache.attach(document => 'seen_document');
SET client_min_messages = warning;
CALL profile_cache.refresh();
CREATE VIEW wrong AS
SELECT p.name, p.value AS pinned, d.value AS seen
FROM jsonb_each_text(public.get_profile('00000000-0000-0000-0000-000000000001'::pg_catalog.uuid)) AS d(name, value) JOIN public.pinned AS p USING (name)
WHERE pg_catalog.regexp_replace(d.value, '^(POSIX|C\.(UTF-8|utf8))$', 'C') <> p.value
ORDER BY p.name COLLATE "C";

CREATE ROLE regress_settings_reader;
GRANT SELECT ON user_profile, pinned, wrong TO regress_settings_reader;

-- All others at once, but for the one that would end the session at an error of the test's own.
SELECT count(set_config(p.name, p.other, false)) > 20 AS changed
FROM pinned AS p JOIN pg_settings AS s USING (name) WHERE p.name <> 'restrict_nonsystem_relation_kind';
-- Read on a miss.
SET profile_cache.enabled = off;
SELECT * FROM public.wrong;
-- By a role that may not set all that the session has.
SET ROLE regress_settings_reader;
SELECT * FROM public.wrong;
RESET ROLE;
SET profile_cache.enabled = on;
-- Stored at a commit.
UPDATE public.user_profile SET n = n + 1;
SELECT profile_cache.explain('00000000-0000-0000-0000-000000000001'::pg_catalog.uuid) ->> 'served_from' AS served_from;
SELECT * FROM public.wrong;
-- Nothing of ours stays in force.
SELECT p.name FROM public.pinned AS p JOIN pg_catalog.pg_settings AS s USING (name)
WHERE s.setting <> p.other AND p.name <> 'restrict_nonsystem_relation_kind' ORDER BY 1;
RESET ALL;

-- restrict_nonsystem_relation_kind by itself: with it nobody can read a view of the test's either. And
-- with exit_on_error whatever fails in the view would end the session.
SET restrict_nonsystem_relation_kind = 'view';
SET exit_on_error = on;
UPDATE user_profile SET n = n + 1;
SELECT get_profile('00000000-0000-0000-0000-000000000001') ->> 'restrict_nonsystem_relation_kind' = '' AS pinned, 'still here' AS session;
RESET ALL;

SELECT profile_cache.detach();
DROP VIEW wrong, seen_document;
DROP FUNCTION seen;
DROP TABLE user_profile, pinned, harmless;
DROP EXTENSION profile_cache;
DROP ROLE regress_settings_reader;
