-- :users users, the same on every run. Two in three have a subscription (one in ten of
-- those is over), everyone is a member, some have further roles.
-- User n has the key md5('user' || n): known without looking it up.

INSERT INTO subscription_plan VALUES
    ('free', 'Free Plan', 0, 10, '{"export": false, "seats": 1}'),
    ('pro', 'Pro', 19, 500, '{"export": true, "seats": 1, "models": ["small", "large"]}'),
    ('team', 'Team', 49, 2000, '{"export": true, "seats": 25, "models": ["small", "large"], "sso": true}');

INSERT INTO role (name, description, permissions) VALUES
    ('member', 'Everyone', '["profile.read", "profile.write"]'),
    ('editor', 'Writes', '["content.read", "content.write"]'),
    ('moderator', 'Keeps order', '["content.read", "content.hide", "users.warn"]'),
    ('support', 'Helps', '["users.read", "tickets.read", "tickets.write"]'),
    ('admin', 'Runs it all', '["*"]');

INSERT INTO user_profile
    (supabase_user_id, email, full_name, avatar_url, phone, company, job_title, timezone, language,
     is_active, is_verified, onboarding_completed, preferences, last_login, created_at, updated_at)
SELECT md5('user' || n)::uuid, 'user' || n || '@example.com', 'User Number ' || n,
       'https://cdn.example.com/avatars/' || md5(n::text) || '.png',
       CASE WHEN n % 3 = 0 THEN '+49 30 ' || n END, 'Company ' || n % 997, (ARRAY['Engineer', 'Designer', 'Writer'])[1 + n % 3],
       (ARRAY['Europe/Berlin', 'America/New_York', 'Asia/Tokyo'])[1 + n % 3], (ARRAY['de', 'en', 'ja'])[1 + n % 3],
       n % 50 <> 0, n % 7 <> 0, n % 5 <> 0,
       jsonb_build_object('theme', (ARRAY['dark', 'light'])[1 + n % 2], 'newsletter', n % 4 = 0),
       CASE WHEN n % 11 <> 0 THEN day - n * interval '1 minute' END, day - n * interval '10 minutes', day - n * interval '1 minute'
FROM generate_series(1, :users) n, date_trunc('day', now()) day;

INSERT INTO user_subscription (user_id, plan_id, status, current_period_start, current_period_end, stripe_subscription_id)
SELECT id, CASE WHEN id % 9 = 0 THEN 'team' ELSE 'pro' END,
       (ARRAY['trialing', 'canceled', 'active', 'active', 'active', 'active', 'active', 'active', 'active', 'active'])[1 + id % 10],
       day - id % 20 * interval '1 day', day + (30 - id % 20) * interval '1 day', 'sub_' || md5(id::text)
FROM user_profile, date_trunc('day', now()) day
WHERE id % 3 <> 0 OR id % 9 = 0;

INSERT INTO user_role (user_id, role_id, assigned_at)
SELECT u.id, r.id, u.created_at
FROM user_profile u, role r
WHERE r.id = 1 OR (r.id = 2 AND u.id % 4 = 0) OR (r.id = 3 AND u.id % 40 = 0) OR (r.id = 4 AND u.id % 100 = 0) OR (r.id = 5 AND u.id % 1000 = 0);
