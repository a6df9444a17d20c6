-- The same by a call for each.
SELECT u.id, get_profile(u.id) FROM (SELECT md5('user' || 1 + floor(random() * :users)::int)::uuid FROM generate_series(1, :ids) OFFSET 0) AS u (id);
