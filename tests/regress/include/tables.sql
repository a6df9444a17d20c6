-- The conventional tables with a handful of users; what most tests start from.
-- Included with \i, quietly: see the tests' first lines.
CREATE FUNCTION u(n integer) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$SELECT pg_catalog.lpad(n::text, 32, '0')::uuid$$;

CREATE TABLE user_profile (
    id bigint PRIMARY KEY,
    supabase_user_id uuid NOT NULL UNIQUE,
    email text,
    note text
);
CREATE TABLE subscription_plan (
    id text PRIMARY KEY,
    display_name text,
    ai_daily_limit integer,
    features jsonb,
    price numeric
);
CREATE TABLE user_subscription (
    id bigint PRIMARY KEY,
    user_id bigint REFERENCES user_profile ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE,
    plan_id text REFERENCES subscription_plan ON DELETE CASCADE ON UPDATE CASCADE,
    status text,
    current_period_end timestamptz,
    memo text
);
CREATE TABLE role (
    id bigint PRIMARY KEY,
    name text UNIQUE,
    permissions jsonb,
    description text
);
CREATE TABLE user_role (
    id bigint PRIMARY KEY,
    user_id bigint REFERENCES user_profile ON DELETE CASCADE ON UPDATE CASCADE,
    role_id bigint REFERENCES role ON DELETE SET NULL ON UPDATE CASCADE
);
CREATE INDEX ON user_subscription (user_id);
CREATE INDEX ON user_subscription (plan_id);
CREATE INDEX ON user_role (user_id);
CREATE INDEX ON user_role (role_id);

INSERT INTO subscription_plan VALUES
    ('free', 'Free of charge', 5, NULL, 0),
    ('pro', 'Professional', 100, '{"export": true}', 9.50),
    ('team', 'Team', 500, '{"export": true, "seats": 10}', 49);
INSERT INTO user_profile (id, supabase_user_id, email)
    SELECT n, u(n), 'user' || n || '@example.com' FROM generate_series(1, 5) AS n;
INSERT INTO user_subscription VALUES
    (1, 1, 'pro', 'active', '2100-01-01 00:00:00+00'),
    (2, 2, 'team', 'trialing', NULL),
    (3, 3, 'pro', 'cancelled', '2100-01-01 00:00:00+00'),
    (4, 4, 'pro', 'active', '2000-01-01 00:00:00+00');
INSERT INTO role VALUES (1, 'admin', '["read", "write"]'), (2, 'editor', '["write"]'), (3, 'Viewer', NULL);
INSERT INTO user_role VALUES (1, 1, 1), (2, 1, 3), (3, 2, 2);
