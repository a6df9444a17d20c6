-- As many users again, each like one of the :users that are there, in one transaction. User :users + n has the key of a
-- user of that number (../demo/data.sql).
BEGIN;

INSERT INTO user_profile
    (supabase_user_id, email, full_name, avatar_url, phone, company, job_title, timezone, language,
     is_active, is_verified, onboarding_completed, preferences, last_login, created_at, updated_at)
SELECT md5('user' || :users + id)::uuid, 'imported' || id || '@example.com', full_name, avatar_url, phone, company, job_title, timezone, language,
       is_active, is_verified, onboarding_completed, preferences, last_login, created_at, updated_at
FROM user_profile WHERE id <= :users;

INSERT INTO user_subscription (user_id, plan_id, status, current_period_start, current_period_end, stripe_subscription_id)
SELECT u.id, s.plan_id, s.status, s.current_period_start, s.current_period_end, 'imported_' || s.stripe_subscription_id
FROM user_subscription s JOIN user_profile u ON u.supabase_user_id = md5('user' || :users + s.user_id)::uuid WHERE s.user_id <= :users;

INSERT INTO user_role (user_id, role_id, assigned_at)
SELECT u.id, r.role_id, r.assigned_at
FROM user_role r JOIN user_profile u ON u.supabase_user_id = md5('user' || :users + r.user_id)::uuid WHERE r.user_id <= :users;

COMMIT;
