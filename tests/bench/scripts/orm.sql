-- What an ORM sends for one profile. The app then builds the document from the rows, which is not measured.
\set n random(1, :users)
SELECT id, supabase_user_id, email, full_name, avatar_url, phone, company, job_title, timezone, language, is_active, is_verified, onboarding_completed, preferences, last_login, created_at, updated_at FROM user_profile WHERE supabase_user_id = md5('user' || :n)::uuid;
SELECT id, user_id, plan_id, status, current_period_start, current_period_end, stripe_subscription_id FROM user_subscription WHERE user_id = :n;
SELECT id, display_name, price_monthly, ai_daily_limit, features FROM subscription_plan WHERE id = 'pro';
SELECT role_id FROM user_role WHERE user_id = :n;
SELECT id, name, description, permissions FROM role WHERE id IN (1, 2);
