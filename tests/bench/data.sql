-- What the demo's data lacks (../demo/data.sql, which comes first): a plan that a third of
-- the users have ('pro'), a role to change to and fro ('guest', 6, for 'member', 1), and for
-- the curves, where :roles is not 0, exactly that many roles for each user.

INSERT INTO subscription_plan VALUES ('basic', 'Basic', 5, 50, '{"export": true, "seats": 1}');
UPDATE user_subscription SET plan_id = 'basic' WHERE user_id % 3 = 2;

INSERT INTO role (name, description, permissions) VALUES ('guest', 'Looks in', '["profile.read"]');
INSERT INTO role (name, description, permissions)
SELECT 'role ' || n, 'One of many', jsonb_build_array('area' || n || '.read', 'area' || n || '.write') FROM generate_series(2, :roles) n;
DELETE FROM user_role WHERE :roles > 0;
INSERT INTO user_role (user_id, role_id, assigned_at)
SELECT u.id, r.id, u.created_at FROM user_profile u, role r WHERE :roles > 0 AND (r.id = 1 OR r.id > 6);
