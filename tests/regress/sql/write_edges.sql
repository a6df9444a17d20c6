-- Shapes of tables and statements that an app may have although no tutorial has them: a profile that
-- refers to profiles, members with two ways to it, keys that change hands, rows that go and come in
-- one statement. Served is what the view says, before and after refresh.
-- Rules: R7.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
-- A manager; who granted a role; a role and a plan that the profile itself refers to.
ALTER TABLE user_profile ADD COLUMN manager_id bigint REFERENCES user_profile ON DELETE SET NULL ON UPDATE CASCADE,
    ADD COLUMN deputy_of bigint REFERENCES user_profile ON DELETE CASCADE,
    ADD COLUMN main_role bigint REFERENCES role ON DELETE SET NULL,
    ADD COLUMN default_plan text DEFAULT 'free' REFERENCES subscription_plan ON DELETE SET DEFAULT ON UPDATE CASCADE;
ALTER TABLE user_role ADD COLUMN granted_by bigint REFERENCES user_profile ON DELETE CASCADE;
CREATE INDEX ON user_profile (manager_id);
UPDATE user_profile SET manager_id = 1 WHERE id IN (2, 3);
UPDATE user_profile SET deputy_of = 4 WHERE id = 5;
UPDATE user_profile SET main_role = 1, default_plan = 'pro' WHERE id = 1;
UPDATE user_role SET granted_by = 3 WHERE user_id = 1;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
\set check 'SELECT state(); SELECT * FROM pending(); SELECT what, user_id FROM wrong(); CALL profile_cache.refresh(); SELECT state(); SELECT what, user_id FROM wrong();'
\set ECHO all

-- Referential actions on the profile itself, in its own statement and from others.
UPDATE user_profile SET id = 11 WHERE id = 1;
:check
SELECT id, get_profile(supabase_user_id) -> 'manager_id' FROM user_profile ORDER BY id;
DELETE FROM user_profile WHERE id = 11;
:check
SELECT id, get_profile(supabase_user_id) -> 'manager_id' FROM user_profile ORDER BY id;
DELETE FROM user_profile WHERE id = 4;
:check
DELETE FROM role WHERE id = 2;
:check
UPDATE user_profile SET default_plan = 'team' WHERE id = 2;
UPDATE subscription_plan SET id = 'crew' WHERE id = 'team';
:check
SELECT get_profile(u(2)) -> 'default_plan';
DELETE FROM subscription_plan WHERE id = 'crew';
:check
SELECT get_profile(u(2)) -> 'default_plan';
-- Managers in a circle, and all of them deleted at once.
INSERT INTO user_profile (id, supabase_user_id, manager_id) VALUES (21, u(21), 22), (22, u(22), 23), (23, u(23), 21);
:check
UPDATE user_profile SET id = id + 10 WHERE id BETWEEN 21 AND 23;
:check
DELETE FROM user_profile WHERE id BETWEEN 31 AND 32;
:check
DELETE FROM user_profile WHERE id = 33;

-- A key that changes hands, step by step in one transaction, and through a value in between.
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (1, u(1), 'one');
CALL profile_cache.refresh();
BEGIN;
UPDATE user_profile SET supabase_user_id = u(100) WHERE id = 1;
UPDATE user_profile SET supabase_user_id = u(1) WHERE id = 2;
UPDATE user_profile SET supabase_user_id = u(2) WHERE id = 1;
SELECT get_profile(u(1)) ->> 'email', get_profile(u(2)) ->> 'email', get_profile(u(100));
SELECT what, user_id FROM wrong();
COMMIT;
:check
-- A primary key that another row takes over, while members stay behind (deferred).
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
UPDATE user_profile SET id = 50 WHERE id = 2;
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (2, u(50), 'took over');
INSERT INTO user_subscription VALUES (50, 2, 'pro', 'active', NULL);
SELECT what, user_id FROM wrong();
COMMIT;
:check

-- Gone and come again: in one statement, in one transaction, under another primary key.
WITH gone AS (DELETE FROM user_profile WHERE id = 3 RETURNING *)
INSERT INTO user_profile (id, supabase_user_id, email) SELECT id, supabase_user_id, 'in one statement' FROM gone;
SELECT get_profile(u(3)) ->> 'email';
:check
BEGIN;
DELETE FROM user_profile WHERE id = 3;
SELECT get_profile(u(3));
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (33, u(3), 'under another');
INSERT INTO user_role VALUES (60, 33, 1, NULL);
SELECT get_profile(u(3)) ->> 'email', get_profile(u(3)) -> 'roles';
COMMIT;
:check
MERGE INTO user_profile AS p USING (VALUES (33), (34)) AS v(id) ON p.id = v.id
    WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, supabase_user_id, email) VALUES (34, u(34), 'merged');
:check

-- By way of views, functions, cursors, and several tables at once.
CREATE VIEW editable AS SELECT id, supabase_user_id, email FROM user_profile WHERE id < 1000 WITH CHECK OPTION;
UPDATE editable SET email = 'by a view' WHERE id = 1;
INSERT INTO editable VALUES (70, u(70), 'by a view');
DELETE FROM editable WHERE id = 70;
INSERT INTO editable VALUES (1070, u(71), 'refused');
:check
CREATE FUNCTION write_in_sql() RETURNS SETOF bigint LANGUAGE sql AS $$
    UPDATE user_profile SET email = 'sql 1' WHERE id = 1;
    INSERT INTO user_role VALUES (71, 1, 1, NULL);
    UPDATE user_profile SET email = 'sql 2' WHERE id = 1 RETURNING id;
$$;
SELECT write_in_sql();
SELECT * FROM write_in_sql() LIMIT 0;
:check
BEGIN;
DECLARE c CURSOR FOR SELECT id FROM user_profile WHERE id = 1 FOR UPDATE;
FETCH 1 FROM c;
UPDATE user_profile SET email = 'current of' WHERE CURRENT OF c;
UPDATE user_profile SET email = 'after it' WHERE id = 1;
FETCH 1 FROM c;
COMMIT;
:check
-- A cursor that a row trigger opens sees the change, and not what its statement's end makes pending.
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    inside refcursor := 'inside';
BEGIN
    OPEN inside FOR SELECT get_profile(supabase_user_id)::text = document::text FROM profile_document WHERE supabase_user_id = u(1);
    RETURN NULL;
END $$;
CREATE TRIGGER look AFTER UPDATE ON role FOR EACH ROW EXECUTE FUNCTION look();
CALL profile_cache.refresh();
BEGIN;
UPDATE role SET name = 'seen' WHERE id = 1;
FETCH ALL inside;
COMMIT;
DROP TRIGGER look ON role;
:check
TRUNCATE user_role, user_subscription;
:check
TRUNCATE role CASCADE;
SELECT count(*) FROM user_profile;
:check

-- Bulk loads below the usual path.
INSERT INTO subscription_plan VALUES ('free', 'Free', 1, '{}', 0) ON CONFLICT DO NOTHING;
BEGIN;
TRUNCATE user_profile CASCADE;
COPY user_profile (id, supabase_user_id, email) FROM stdin WITH (FREEZE);
1	00000000-0000-0000-0000-000000000001	frozen
2	00000000-0000-0000-0000-000000000002	frozen
\.
SELECT state();
SELECT what, user_id FROM wrong();
COMMIT;
:check
VACUUM (FREEZE) user_profile;
CLUSTER user_profile USING user_profile_pkey;
SELECT state();
INSERT INTO role VALUES (1, 'new', NULL, NULL);
:check
-- PostgreSQL 18 counts rows in fractions.
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF, SUMMARY OFF) UPDATE user_profile SET email = 'explained' WHERE id = 1 \g |sed 's/rows=\([0-9]*\)\.00/rows=\1/'
EXPLAIN (COSTS OFF) UPDATE user_profile SET email = 'not done' WHERE id = 1;
SELECT get_profile(u(1)) ->> 'email';
:check

-- A generated column that becomes an ordinary one is followed as such.
ALTER TABLE user_profile ADD COLUMN g text GENERATED ALWAYS AS (lower(email)) STORED;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
ALTER TABLE user_profile ALTER COLUMN g DROP EXPRESSION;
CALL profile_cache.refresh();
UPDATE user_profile SET g = 'by itself' WHERE id = 1;
SELECT get_profile(u(1)) ->> 'g';
:check

-- Ours and a foreign transaction's end: what a rolled back statement remembers is forgotten.
BEGIN;
UPDATE user_profile SET email = 'rolled back' WHERE id = 1;
DELETE FROM user_profile WHERE id = 2;
TRUNCATE user_role;
ROLLBACK;
INSERT INTO user_role VALUES (80, 2, 1, NULL);
:check
BEGIN;
UPDATE user_profile SET email = 'prepared' WHERE id = 1;
INSERT INTO user_role VALUES (81, 1, 1, NULL);
DELETE FROM user_profile WHERE id = 2;
PREPARE TRANSACTION 'regress_edges';
SELECT what, user_id FROM wrong();
INSERT INTO subscription_plan VALUES ('other', 'Other', 1, '{}', 0);
COMMIT PREPARED 'regress_edges';
:check
