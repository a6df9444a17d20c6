-- Five users in random order, of the few who are often changed: so clients meet, and may deadlock.
\set a random(1, 1000)
\set b random(1, 1000)
\set c random(1, 1000)
\set d random(1, 1000)
\set e random(1, 1000)
BEGIN;
UPDATE user_role SET role_id = 7 - role_id WHERE user_id = :a AND role_id IN (1, 6);
UPDATE user_role SET role_id = 7 - role_id WHERE user_id = :b AND role_id IN (1, 6);
UPDATE user_role SET role_id = 7 - role_id WHERE user_id = :c AND role_id IN (1, 6);
UPDATE user_role SET role_id = 7 - role_id WHERE user_id = :d AND role_id IN (1, 6);
UPDATE user_role SET role_id = 7 - role_id WHERE user_id = :e AND role_id IN (1, 6);
COMMIT;
