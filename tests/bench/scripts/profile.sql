\set n random(1, :users)
\set r random(1, 1000000)
UPDATE user_profile SET full_name = 'User Name ' || :r WHERE id = :n;
