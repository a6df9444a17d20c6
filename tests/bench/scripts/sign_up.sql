BEGIN;
INSERT INTO user_profile (supabase_user_id, email, full_name, avatar_url, company, job_title, timezone, language, is_active, is_verified, onboarding_completed, preferences, created_at, updated_at)
VALUES (gen_random_uuid(), gen_random_uuid(), 'New User', '', '', '', 'Europe/Berlin', 'de', true, false, false, '{}', now(), now()) RETURNING id \gset
INSERT INTO user_subscription (user_id, plan_id, status, current_period_start, current_period_end, stripe_subscription_id)
VALUES (:id, 'basic', 'trialing', now(), now() + interval '30 days', 'sub_new_' || :id);
INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (:id, 1, now());
INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (:id, 2, now());
INSERT INTO user_role (user_id, role_id, assigned_at) VALUES (:id, 3, now());
COMMIT;
