\set n random(1, :users)
SELECT get_profile(md5('user' || :n)::uuid);
