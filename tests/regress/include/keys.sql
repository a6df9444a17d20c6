-- One run of keys.sql: profiles, plans and roles with keys of type :parent, and members that refer to
-- them by columns of type :child; the n-th key is :make, an expression of n. Prints what is cached and
-- what is wrong at each step: ideally a row of counts of cached profiles, and no wrong one.
DROP SCHEMA IF EXISTS app CASCADE;
CREATE SCHEMA app;
SET search_path = app, public;
CREATE TABLE user_profile (id :parent PRIMARY KEY, supabase_user_id uuid UNIQUE, email text);
CREATE TABLE subscription_plan (id :parent PRIMARY KEY, display_name text);
CREATE TABLE user_subscription (id int PRIMARY KEY, user_id :child REFERENCES user_profile ON UPDATE CASCADE ON DELETE CASCADE DEFERRABLE,
    plan_id :child REFERENCES subscription_plan ON UPDATE CASCADE, status text);
CREATE TABLE role (id :parent PRIMARY KEY, name text);
CREATE TABLE user_role (id int PRIMARY KEY, user_id :child REFERENCES user_profile ON UPDATE CASCADE ON DELETE CASCADE,
    role_id :child REFERENCES role ON UPDATE CASCADE);
CREATE INDEX ON user_subscription (user_id);
CREATE INDEX ON user_subscription (plan_id);
CREATE INDEX ON user_role (user_id);
CREATE INDEX ON user_role (role_id);
INSERT INTO user_profile SELECT :make, u(n), n FROM generate_series(1, 4) AS n;
INSERT INTO subscription_plan SELECT :make, 'plan ' || n FROM generate_series(1, 3) AS n;
INSERT INTO role SELECT :make, 'role ' || n FROM generate_series(1, 3) AS n;
INSERT INTO user_subscription SELECT n, :make, :make, 'active' FROM generate_series(1, 2) AS n;
INSERT INTO user_role SELECT n, :make, :make FROM generate_series(1, 2) AS n;
SELECT profile_cache.attach() \g /dev/null
CALL profile_cache.refresh();
SELECT report('refreshed');
UPDATE user_subscription SET status = 'trialing';
SELECT report('member updated');
INSERT INTO user_role SELECT 10 + n, :make, :make FROM generate_series(3, 3) AS n;
SELECT report('member inserted');
UPDATE user_role SET user_id = (SELECT :make FROM generate_series(4, 4) AS n) WHERE id = 1;
SELECT report('member moved');
UPDATE subscription_plan SET display_name = 'changed' WHERE display_name = 'plan 1';
SELECT report('plan updated');
CALL profile_cache.refresh();
SELECT report('refreshed');
UPDATE role SET name = 'changed' WHERE name = 'role 2';
SELECT report('role updated');
CALL profile_cache.refresh();
UPDATE user_profile SET id = (SELECT :make FROM generate_series(5, 5) AS n) WHERE email = '1';
SELECT report('key changed');
CALL profile_cache.refresh();
UPDATE subscription_plan SET id = (SELECT :make FROM generate_series(6, 6) AS n) WHERE display_name = 'plan 2';
SELECT report('plan''s key changed');
CALL profile_cache.refresh();
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO user_subscription SELECT 20, :make, NULL, 'active' FROM generate_series(7, 7) AS n;
INSERT INTO user_profile SELECT :make, u(n), n FROM generate_series(7, 7) AS n;
COMMIT;
SELECT report('child before its parent');
CALL profile_cache.refresh();
SELECT report('refreshed');
DELETE FROM user_profile WHERE email = '2';
SELECT report('profile deleted');
DELETE FROM user_role;
SELECT report('members deleted');
SELECT get_profile(u(1)) -> 'subscription_plan' AS plan;
SELECT profile_cache.detach() \g /dev/null
