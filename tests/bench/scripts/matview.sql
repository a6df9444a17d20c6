\set n random(1, :users)
SELECT document FROM profile_materialized WHERE supabase_user_id = md5('user' || :n)::uuid;
