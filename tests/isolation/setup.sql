-- What every isolation spec starts from: the conventional tables with a handful of users, the
-- extension attached to them, and one view that says all that may be wrong.

DO $$ BEGIN
    -- Notices of refresh() tell its speed.
    EXECUTE format('ALTER DATABASE %I SET client_min_messages = warning', current_database());
END $$;

CREATE TABLE subscription_plan (
    id text PRIMARY KEY,
    display_name text NOT NULL,
    ai_daily_limit integer NOT NULL,
    features jsonb NOT NULL DEFAULT '{}'
);
CREATE TABLE role (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    permissions jsonb NOT NULL DEFAULT '[]'
);
CREATE TABLE user_profile (
    id bigint PRIMARY KEY,
    supabase_user_id uuid NOT NULL UNIQUE,
    full_name text NOT NULL,
    last_seen integer NOT NULL DEFAULT 0 -- not shown: a write of it changes no document
);
-- Foreign keys as Django makes them. A user may have several subscriptions.
CREATE TABLE user_subscription (
    id bigint PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES user_profile DEFERRABLE INITIALLY DEFERRED,
    plan_id text NOT NULL REFERENCES subscription_plan DEFERRABLE INITIALLY DEFERRED,
    status text NOT NULL DEFAULT 'active',
    current_period_end timestamptz
);
CREATE INDEX ON user_subscription (user_id);
CREATE INDEX ON user_subscription (plan_id);
CREATE TABLE user_role (
    user_id bigint NOT NULL REFERENCES user_profile DEFERRABLE INITIALLY DEFERRED,
    role_id bigint NOT NULL REFERENCES role DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (user_id, role_id)
);
CREATE INDEX ON user_role (role_id);

CREATE EXTENSION profile_cache;
SELECT profile_cache.attach(exclude => '{last_seen}');

-- Everyone there may ever be. Keys sort by name.
CREATE TABLE who (name text PRIMARY KEY, n bigint NOT NULL, id uuid NOT NULL);
INSERT INTO who SELECT name, n, format('00000000-0000-0000-0000-%s', lpad(n::text, 12, '0'))::uuid
FROM (VALUES ('abe', 1), ('ann', 2), ('bob', 3), ('cat', 4), ('dan', 5), ('eve', 6)) AS w(name, n);

CREATE FUNCTION key(name text) RETURNS uuid LANGUAGE sql STABLE AS 'SELECT id FROM who WHERE who.name = key.name';

-- As it was before any permutation: abe and dan without a subscription, ann and bob on pro, cat on
-- team; all members but eve, who is not there. To be followed by CALL profile_cache.refresh().
CREATE PROCEDURE reset() LANGUAGE sql BEGIN ATOMIC
    DELETE FROM user_role;
    DELETE FROM user_subscription;
    DELETE FROM user_profile;
    DELETE FROM role;
    DELETE FROM subscription_plan;
    INSERT INTO subscription_plan VALUES ('free', 'Free Plan', 10), ('pro', 'Pro', 500), ('team', 'Team', 2000);
    INSERT INTO role VALUES (1, 'member'), (2, 'editor'), (3, 'admin');
    INSERT INTO user_profile SELECT n, id, name FROM who WHERE name <> 'eve';
    INSERT INTO user_role SELECT n, 1 FROM who WHERE name <> 'eve';
    INSERT INTO user_subscription SELECT n, n, CASE name WHEN 'cat' THEN 'team' ELSE 'pro' END
        FROM who WHERE name IN ('ann', 'bob', 'cat');
END;

-- The oracle. For each user: what get_profile serves, in short, and from where; and what is wrong:
-- SERVED STALE where that is not, byte for byte, the view's document in the same snapshot, STORED
-- STALE where a copy that would be trusted is not. Wrong must be empty always and everywhere.
-- A function under the view, whose text is bound late, so that nothing depends on the document view.
CREATE FUNCTION checked() RETURNS TABLE ("user" text, full_name text, plan text, "limit" text, roles text, "from" text, wrong text)
LANGUAGE sql STABLE AS $$
SELECT w.name, s.served ->> 'full_name', s.served ->> 'subscription_plan', s.served ->> 'ai_daily_limit',
       (SELECT string_agg(r ->> 'name', ',') FROM jsonb_array_elements(s.served -> 'roles') AS r),
       CASE s.e ->> 'served_from' WHEN 'view' THEN 'view: ' || (s.e ->> 'reason') ELSE s.e ->> 'served_from' END,
       concat_ws(', ', CASE WHEN s.served::text IS DISTINCT FROM d.document THEN 'SERVED STALE' END,
                       CASE WHEN v.user_id IS NOT NULL THEN 'STORED STALE' END)
FROM who AS w
CROSS JOIN LATERAL (SELECT get_profile(w.id) AS served, profile_cache.explain(w.id) AS e OFFSET 0) AS s
LEFT JOIN LATERAL (SELECT string_agg(p.document::text, ' and ') AS document FROM profile_document AS p WHERE p.supabase_user_id = w.id) AS d ON true
LEFT JOIN profile_cache.verify() AS v ON v.user_id = w.id
WHERE s.e ->> 'served_from' <> 'none' OR d.document IS NOT NULL
ORDER BY w.name
$$;
CREATE VIEW check_all AS SELECT * FROM checked();

-- After refresh(): nothing wrong, and how much is cached and still pending.
CREATE VIEW cached_all AS
SELECT s.cached || ' of ' || s.rows AS cached, s.pending_keys, s.pending_epochs, cardinality(s.held_up_by) AS holders,
       (SELECT count(*) FROM check_all WHERE wrong <> '') AS wrong
FROM profile_cache.status AS s;

-- For single sessions: whether two reads in the middle of a statement agree. Volatile, so that it
-- sees what the statement has done so far.
CREATE FUNCTION compare(id bigint) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    key uuid := (SELECT supabase_user_id FROM user_profile AS p WHERE p.id = compare.id);
BEGIN
    RETURN CASE WHEN get_profile(key)::text IS NOT DISTINCT FROM
                     (SELECT document::text FROM profile_document WHERE supabase_user_id = key)
                THEN 'same, from ' ELSE 'SERVED STALE, from ' END || (profile_cache.explain(key) ->> 'served_from');
END $$;

-- The oracle of specs that attach tables and a view of their own instead (in schema crm): the same, by
-- whatever names are attached.
CREATE FUNCTION checked_own() RETURNS TABLE ("user" text, document jsonb, "from" text, wrong text) LANGUAGE plpgsql STABLE AS $$
DECLARE
    a profile_cache.attachment := (SELECT a FROM profile_cache.attachment AS a);
BEGIN
    RETURN QUERY EXECUTE format('
        SELECT w.name, s.served, CASE s.e ->> ''served_from'' WHEN ''view'' THEN ''view: '' || (s.e ->> ''reason'') ELSE s.e ->> ''served_from'' END,
               concat_ws('', '', CASE WHEN s.served::text IS DISTINCT FROM d.document THEN ''SERVED STALE'' END,
                               CASE WHEN v.user_id IS NOT NULL THEN ''STORED STALE'' END)
        FROM who AS w
        CROSS JOIN LATERAL (SELECT get_profile(w.id) AS served, profile_cache.explain(w.id) AS e OFFSET 0) AS s
        LEFT JOIN LATERAL (SELECT string_agg(p.document::text, '' and '') AS document FROM %s AS p WHERE p.%I = w.id) AS d ON true
        LEFT JOIN profile_cache.verify() AS v ON v.user_id = w.id
        WHERE s.e ->> ''served_from'' <> ''none'' OR d.document IS NOT NULL
        ORDER BY w.name', a.document, a.definition ->> 'view_key');
END $$;
CREATE VIEW check_own AS SELECT * FROM checked_own();
CREATE VIEW cached_own AS
SELECT s.cached || ' of ' || s.rows AS cached, s.pending_keys, s.pending_epochs, cardinality(s.held_up_by) AS holders, s.warnings,
       (SELECT count(*) FROM check_own WHERE wrong <> '') AS wrong
FROM profile_cache.status AS s;
