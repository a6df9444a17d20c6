-- As an ORM sets a list of roles: what is no longer in it goes, what is new comes.
\set n random(1, :users)
BEGIN;
DELETE FROM user_role WHERE user_id = :n AND role_id IN (1, 6);
INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (:n, 1 + 5 * (:n % 2), now()) ON CONFLICT DO NOTHING;
COMMIT;
