\set n random(1, :users)
UPDATE user_role SET role_id = 7 - role_id WHERE user_id = :n AND role_id IN (1, 6);
