-- The profiles of so many random users.
SELECT f.user_id, f.profile FROM get_profiles(ARRAY(SELECT md5('user' || 1 + floor(random() * :users)::int)::uuid FROM generate_series(1, :ids))) AS f;
