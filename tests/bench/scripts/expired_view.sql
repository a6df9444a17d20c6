-- Users 18, 198, 378, …, whose subscriptions the bench has let end.
\set n 180 * random(0, :users / 180 - 1) + 18
SELECT document FROM profile_document WHERE supabase_user_id = md5('user' || :n)::uuid;
