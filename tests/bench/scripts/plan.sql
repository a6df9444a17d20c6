UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'pro';
