-- What get_profile replaces, written by hand: the join that builds the same document,
-- and the five queries of an ORM. As functions, so that plans are kept and both run
-- inside the server: an app pays a round trip on top, and the ORM pays five.

CREATE FUNCTION by_join(uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT to_jsonb(u) - '{id,cached_profile,cached_profile_valid_until,cached_profile_epoch,profile_cache_updated_at}'::text[]
            || jsonb_build_object(
                'last_login', to_char(u.last_login AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                'created_at', to_char(u.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                'updated_at', to_char(u.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                'subscription_plan', coalesce(p.id, 'free'),
                'subscription_status', coalesce(s.status, 'free'),
                'subscription_display_name', coalesce(p.display_name, 'Free Plan'),
                'ai_daily_limit', coalesce(p.ai_daily_limit, (SELECT ai_daily_limit FROM subscription_plan WHERE id = 'free')),
                'subscription_data', jsonb_build_object(
                    'plan', coalesce(p.id, 'free'),
                    'status', coalesce(s.status, 'free'),
                    'display_name', coalesce(p.display_name, 'Free Plan'),
                    'features', coalesce(p.features, '{}')),
                'roles', (
                    SELECT coalesce(jsonb_agg(jsonb_build_object('name', r.name, 'permissions', r.permissions) ORDER BY r.name COLLATE "C"), '[]')
                    FROM user_role ur JOIN role r ON r.id = ur.role_id
                    WHERE ur.user_id = u.id))
        FROM user_profile u
             LEFT JOIN user_subscription s ON s.user_id = u.id AND s.status IN ('active', 'trialing') AND s.current_period_end > now()
             LEFT JOIN subscription_plan p ON p.id = s.plan_id
        WHERE u.supabase_user_id = $1);
END $$;

-- Only fetches: Python builds the document from the rows.
CREATE FUNCTION by_queries(uuid) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    u record;
    s record;
    p record;
    ids bigint[];
    roles text[];
BEGIN
    SELECT id, supabase_user_id, email, full_name, avatar_url, phone, company, job_title, timezone, language, is_active,
           is_verified, onboarding_completed, preferences, last_login, created_at, updated_at
        INTO u FROM user_profile WHERE supabase_user_id = $1;
    SELECT * INTO s FROM user_subscription WHERE user_id = u.id;
    SELECT * INTO p FROM subscription_plan WHERE id = s.plan_id;
    SELECT array_agg(role_id) INTO ids FROM user_role WHERE user_id = u.id;
    SELECT array_agg(r::text) INTO roles FROM role r WHERE id = ANY (ids);
END $$;

CREATE FUNCTION by_cache(uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN get_profile($1);
END $$;

-- Microseconds for one call, over these users; the first of two passes only warms up.
CREATE FUNCTION microseconds(reader text, keys uuid[]) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
    key uuid;
    start timestamptz;
BEGIN
    FOR pass IN 1..2 LOOP
        start := clock_timestamp();
        CASE reader
            WHEN 'cache' THEN FOREACH key IN ARRAY keys LOOP PERFORM by_cache(key); END LOOP;
            WHEN 'join' THEN FOREACH key IN ARRAY keys LOOP PERFORM by_join(key); END LOOP;
            WHEN 'queries' THEN FOREACH key IN ARRAY keys LOOP PERFORM by_queries(key); END LOOP;
            WHEN 'nothing' THEN FOREACH key IN ARRAY keys LOOP PERFORM key; END LOOP;
        END CASE;
    END LOOP;
    RETURN extract(epoch FROM clock_timestamp() - start) * 1000000 / cardinality(keys);
END $$;
