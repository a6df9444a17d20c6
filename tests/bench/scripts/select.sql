\set n random(1, :users)
SELECT cached_profile FROM user_profile WHERE supabase_user_id = md5('user' || :n)::uuid;
