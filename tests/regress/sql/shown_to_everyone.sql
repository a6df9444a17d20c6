-- Tables that every profile shows: any change of what the view reads there is everybody's, in whatever way it is made, and no
-- other change is; attach() says so, and nobody but attach() lets a view begin with it.
-- Rules: W9, D6.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
SET client_min_messages = warning;
CREATE EXTENSION profile_cache;
CREATE TABLE app_settings (id int PRIMARY KEY, banner text, motd text, updated_by int REFERENCES user_profile);
CREATE TABLE feature_flag (id int PRIMARY KEY, name text UNIQUE, memo text);
CREATE TABLE user_flag (flag_id int REFERENCES feature_flag ON DELETE CASCADE, user_id int NOT NULL REFERENCES user_profile ON DELETE CASCADE, at text, PRIMARY KEY (flag_id, user_id));
CREATE INDEX ON user_flag (user_id);
INSERT INTO app_settings VALUES (1, 'hello', 'x');
INSERT INTO feature_flag VALUES (1, 'a'), (2, 'b');
CREATE VIEW document AS SELECT p.supabase_user_id AS uid, jsonb_build_object('banner', s.banner, 'n', (SELECT count(*) FROM role),
        'flags', (SELECT jsonb_object_agg(f.name, uf.at ORDER BY f.id) FROM feature_flag AS f LEFT JOIN user_flag AS uf ON uf.flag_id = f.id AND uf.user_id = p.id)) AS document
    FROM user_profile AS p CROSS JOIN (SELECT a.banner FROM app_settings AS a ORDER BY a.id LIMIT 1) AS s;
-- How many profiles are pending after it, and refresh.
CREATE PROCEDURE after(statement text) LANGUAGE plpgsql AS $$
DECLARE said text;
BEGIN
    EXECUTE statement;
    COMMIT;
    SELECT string_agg(DISTINCT profile_cache.explain(p.supabase_user_id) ->> 'served_from', ', ') || ', wrong: ' || count(*) FILTER (WHERE get_profile(p.supabase_user_id) IS DISTINCT FROM d.document)
        INTO said FROM user_profile AS p LEFT JOIN document AS d ON d.uid = p.supabase_user_id;
    RAISE WARNING '%: %; %', statement, said, (SELECT coalesce(string_agg(DISTINCT reason, ', '), 'nothing pending') FROM profile_cache.pending);
END $$;
\set ECHO all
SELECT profile_cache.attach('user_profile', document => 'document');
CALL profile_cache.refresh();
\set VERBOSITY terse
CALL after($$UPDATE app_settings SET banner = 'hi'$$); CALL profile_cache.refresh();
CALL after($$UPDATE app_settings SET banner = 'hi', motd = 'y', updated_by = 1$$); CALL profile_cache.refresh();
CALL after($$INSERT INTO app_settings VALUES (0, NULL, NULL)$$); CALL profile_cache.refresh();
CALL after($$DELETE FROM app_settings WHERE id = 0$$); CALL profile_cache.refresh();
CALL after($$UPDATE app_settings SET id = 7$$); CALL profile_cache.refresh();
CALL after($$TRUNCATE app_settings$$); CALL profile_cache.refresh();
CALL after($$INSERT INTO role (id, name) SELECT max(r.id) + 1, 'new' FROM role AS r$$); CALL profile_cache.refresh();
CALL after($$UPDATE role SET name = 'newer' WHERE name = 'new'$$); CALL profile_cache.refresh();
CALL after($$DELETE FROM role WHERE name = 'newer'$$); CALL profile_cache.refresh();
CALL after($$INSERT INTO user_flag SELECT 1, min(p.id), 'x' FROM user_profile AS p$$); CALL profile_cache.refresh();
CALL after($$UPDATE feature_flag SET memo = 'x'$$); CALL profile_cache.refresh();
CALL after($$DELETE FROM feature_flag WHERE id = 1$$); CALL profile_cache.refresh();
CALL after($$INSERT INTO app_settings VALUES (1, 'hello', 'x')$$); CALL profile_cache.refresh();

-- IT IS SAID, AND HOW LARGE IT IS
\set VERBOSITY default
INSERT INTO feature_flag SELECT n, 'f' || n FROM generate_series(10, 1509) AS n;
ANALYZE feature_flag;
SELECT profile_cache.attach('user_profile', document => 'document');
DELETE FROM feature_flag WHERE id > 9;
CALL profile_cache.refresh();

-- WHAT DDL MAKES OF IT
\set VERBOSITY terse
ALTER TABLE feature_flag RENAME TO flag;
CALL after($$SELECT$$);
CALL profile_cache.refresh();
CALL after($$UPDATE flag SET name = 'bb' WHERE id = 2$$); CALL profile_cache.refresh();
-- A table that was tied by a constant is not taken for shown to everyone when that is gone, and is tied again when it is back.
CREATE OR REPLACE VIEW document AS SELECT p.supabase_user_id AS uid, jsonb_build_object('flag', (SELECT max(f.memo) FROM flag AS f WHERE f.name = 'a')) AS document FROM user_profile AS p;
SELECT profile_cache.attach('user_profile', document => 'document');
CALL profile_cache.refresh();
ALTER TABLE flag DROP CONSTRAINT feature_flag_name_key;
SELECT problem FROM profile_cache.attachment;
ALTER TABLE flag ADD CONSTRAINT feature_flag_name_key UNIQUE (name);
SELECT problem FROM profile_cache.attachment;
-- A view that is replaced by one that shows it to everyone waits for attach(), which says so.
CREATE OR REPLACE VIEW document AS SELECT p.supabase_user_id AS uid, jsonb_build_object('flags', (SELECT count(f.memo) FROM flag AS f), 'roles', (SELECT count(*) FROM role)) AS document FROM user_profile AS p;
CALL after($$UPDATE flag SET memo = 'y'$$);
SELECT profile_cache.attach('user_profile', document => 'document');
CALL profile_cache.refresh();
CALL after($$UPDATE flag SET memo = NULL$$); CALL profile_cache.refresh();
SELECT profile_cache.detach();
