-- The router: it keeps no user, but knows on which shard each one is, and calls the functions of that shard (shard.sql) by
-- PL/Proxy. Run by whoever moves users; a role `web` is there, as which the app comes.
--
-- A call that PL/Proxy has sent is committed over there, whatever becomes of the transaction here. So each step of a move can
-- be run again, and a move that was cut short is gone on with, or called off.

CREATE EXTENSION plproxy;
-- Without the option the number of shards would have to be a power of two. With it, RUN ON n is partition n.
CREATE SERVER users FOREIGN DATA WRAPPER plproxy OPTIONS (modular_mapping '1', p0 :'shard0', p1 :'shard1', p2 :'shard2');
-- As whom the router comes to the shards: the app as web, whoever moves users as the owner of the tables there.
CREATE USER MAPPING FOR web SERVER users OPTIONS (user 'web');
CREATE USER MAPPING FOR CURRENT_USER SERVER users OPTIONS (user :'owner');
GRANT USAGE ON FOREIGN SERVER users TO web;

-- Where users are

CREATE SCHEMA router;
GRANT USAGE ON SCHEMA router TO web;

-- A bucket's shard: where its users sign up, and are, but for those who are apart.
CREATE TABLE router.bucket (
    bucket integer PRIMARY KEY CHECK (bucket BETWEEN 0 AND 1023),
    shard integer NOT NULL
);

-- Users who are on another shard than their bucket's.
CREATE TABLE router.apart (
    user_id uuid PRIMARY KEY,
    shard integer NOT NULL
);

GRANT SELECT ON router.bucket, router.apart TO web;

-- Moves under way: at most one of a user's.
CREATE TABLE router.move (
    user_id uuid PRIMARY KEY,
    number bigint NOT NULL,
    source integer,
    target integer NOT NULL,
    state text NOT NULL CHECK (state IN ('copying', 'moved', 'called off')),
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE SEQUENCE router.move_number;

-- The same on each shard and on the router.
CREATE FUNCTION router.bucket_of(user_id uuid) RETURNS integer LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (pg_catalog.uuid_hash_extended(user_id, 0) & 1023)::integer;

CREATE FUNCTION router.shard_of(user_id uuid) RETURNS integer LANGUAGE sql STABLE STRICT RETURN coalesce(
    (SELECT a.shard FROM router.apart AS a WHERE a.user_id = shard_of.user_id),
    (SELECT b.shard FROM router.bucket AS b WHERE b.bucket = router.bucket_of(shard_of.user_id))
);

-- Raises where there is no such shard; PL/Proxy would take another one.
CREATE FUNCTION router.must_be_shard(number integer) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_foreign_server AS s, pg_options_to_table(s.srvoptions) AS o WHERE s.srvname = 'users' AND o.option_name = 'p' || number
    ) THEN
        RAISE EXCEPTION 'no shard %', number USING ERRCODE = 'invalid_parameter_value', HINT = 'ALTER SERVER users adds one.';
    END IF;
END $$;

-- What the app calls

CREATE FUNCTION public.get_profile(user_id uuid) RETURNS jsonb LANGUAGE plproxy STRICT AS $$
    CLUSTER 'users';
    RUN ON router.shard_of(user_id);
    TARGET shard.get_profile;
$$;

CREATE FUNCTION router.by_shard(user_ids uuid[]) RETURNS TABLE (user_id uuid, profile jsonb) LANGUAGE plproxy STRICT AS $$
    CLUSTER 'users';
    SPLIT user_ids;
    RUN ON router.shard_of(user_ids);
    TARGET shard.get_profiles;
$$;

-- Shard by shard the rows come; here they are put into the order of the array.
CREATE FUNCTION public.get_profiles(user_ids uuid[]) RETURNS TABLE (user_id uuid, profile jsonb) LANGUAGE sql STRICT AS $$
    SELECT asked.id, p.profile
    FROM unnest(user_ids) WITH ORDINALITY AS asked(id, n)
    LEFT JOIN router.by_shard(ARRAY(SELECT DISTINCT u.id FROM unnest(user_ids) AS u(id) WHERE u.id IS NOT NULL)) AS p ON p.user_id = asked.id
    ORDER BY asked.n
$$;

CREATE FUNCTION public.sign_up(user_id uuid, email text, full_name text) RETURNS void LANGUAGE plproxy STRICT AS $$
    CLUSTER 'users';
    RUN ON router.shard_of(user_id);
    TARGET shard.sign_up;
$$;

CREATE FUNCTION public.rename(user_id uuid, full_name text) RETURNS void LANGUAGE plproxy STRICT AS $$
    CLUSTER 'users';
    RUN ON router.shard_of(user_id);
    TARGET shard.rename;
$$;

CREATE FUNCTION public.subscribe(user_id uuid, plan text, status text, until timestamptz) RETURNS void LANGUAGE plproxy STRICT AS $$
    CLUSTER 'users';
    RUN ON router.shard_of(user_id);
    TARGET shard.subscribe;
$$;

CREATE FUNCTION public.set_roles(user_id uuid, roles text[]) RETURNS void LANGUAGE plproxy STRICT AS $$
    CLUSTER 'users';
    RUN ON router.shard_of(user_id);
    TARGET shard.set_roles;
$$;

-- The steps of a move, on the shard that is given

CREATE SCHEMA on_shard;

CREATE FUNCTION on_shard.leave(place integer, who uuid, number bigint) RETURNS jsonb LANGUAGE plproxy AS $$
    CLUSTER 'users'; RUN ON place; SELECT shard.leave(who, number);
$$;
CREATE FUNCTION on_shard.arrive(place integer, who uuid, number bigint, has jsonb) RETURNS boolean LANGUAGE plproxy AS $$
    CLUSTER 'users'; RUN ON place; SELECT shard.arrive(who, number, has);
$$;
CREATE FUNCTION on_shard.settle(place integer, who uuid, number bigint) RETURNS void LANGUAGE plproxy AS $$
    CLUSTER 'users'; RUN ON place; SELECT shard.settle(who, number);
$$;
CREATE FUNCTION on_shard.clear(place integer, who uuid, number bigint) RETURNS void LANGUAGE plproxy AS $$
    CLUSTER 'users'; RUN ON place; SELECT shard.clear(who, number);
$$;
CREATE FUNCTION on_shard.retract(place integer, who uuid, number bigint) RETURNS void LANGUAGE plproxy AS $$
    CLUSTER 'users'; RUN ON place; SELECT shard.retract(who, number);
$$;
CREATE FUNCTION on_shard.resume(place integer, who uuid, number bigint) RETURNS void LANGUAGE plproxy AS $$
    CLUSTER 'users'; RUN ON place; SELECT shard.resume(who, number);
$$;
CREATE FUNCTION on_shard.open(place integer, which integer, number bigint, whether boolean) RETURNS void LANGUAGE plproxy AS $$
    CLUSTER 'users'; RUN ON place; SELECT shard.open(which, number, whether);
$$;
CREATE FUNCTION on_shard.residents(place integer, which integer) RETURNS SETOF uuid LANGUAGE plproxy AS $$
    CLUSTER 'users'; RUN ON place; SELECT * FROM shard.residents(which);
$$;

-- Moving a user

-- Goes on with the user's move, from wherever it was cut short; does nothing where he has none.
CREATE PROCEDURE router.go_on(who uuid) LANGUAGE plpgsql AS $$
DECLARE
    m router.move;
    has jsonb;
    home integer;
BEGIN
    SELECT * INTO m FROM router.move WHERE user_id = who;
    IF m.state = 'copying' THEN
        has := on_shard.leave(m.source, who, m.number);
        IF has IS NULL THEN
            DELETE FROM router.move WHERE user_id = who AND number = m.number;
            COMMIT;
            RAISE EXCEPTION 'no user %', who USING ERRCODE = 'no_data_found';
        END IF;
        FOR attempt IN 1..100 LOOP
            EXIT WHEN on_shard.arrive(m.target, who, m.number, has);
            IF attempt = 100 THEN
                RAISE EXCEPTION 'shard % has not yet the plans and roles of shard %', m.target, m.source
                    USING ERRCODE = 'object_not_in_prerequisite_state',
                        HINT = format('Look at its subscription; then CALL router.go_on(%L), or router.call_off of the same.', who);
            END IF;
            PERFORM pg_sleep(0.1);
        END LOOP;
        -- From this commit on everybody is sent to the target.
        UPDATE router.move SET state = 'moved' WHERE user_id = who AND number = m.number AND state = 'copying';
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the move of user % has been called off or ended by another session', who USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;
        -- Held to the end: move_bucket waits for it.
        SELECT shard INTO home FROM router.bucket WHERE bucket = router.bucket_of(who) FOR SHARE;
        DELETE FROM router.apart WHERE user_id = who;
        INSERT INTO router.apart (user_id, shard) SELECT who, m.target WHERE m.target <> home;
        COMMIT;
        m.state := 'moved';
    END IF;
    IF m.state = 'moved' THEN
        PERFORM on_shard.settle(m.target, who, m.number);
        PERFORM on_shard.clear(m.source, who, m.number);
    ELSIF m.state = 'called off' THEN
        PERFORM on_shard.retract(m.target, who, m.number);
        PERFORM on_shard.resume(m.source, who, m.number);
    END IF;
    DELETE FROM router.move WHERE user_id = who AND number = m.number AND state = m.state;
    COMMIT;
END $$;

CREATE PROCEDURE router.move_user(who uuid, target integer) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM router.must_be_shard(target);
    INSERT INTO router.move (user_id, number, target, state) VALUES (who, 0, move_user.target, 'copying') ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'user % is being moved already', who
            USING ERRCODE = 'object_in_use', HINT = format('CALL router.go_on(%L) ends that.', who);
    END IF;
    -- A statement of its own: an earlier move of the user may have ended just before the row was inserted.
    UPDATE router.move SET number = nextval('router.move_number'), source = router.shard_of(who) WHERE user_id = who;
    DELETE FROM router.move AS m WHERE m.user_id = who AND m.source = m.target;
    COMMIT;
    CALL router.go_on(who);
END $$;

-- Ends a move that cannot be gone on with: the user stays where he was. Not once he has been moved.
CREATE PROCEDURE router.call_off(who uuid) LANGUAGE plpgsql AS $$
BEGIN
    UPDATE router.move SET state = 'called off' WHERE user_id = who AND state = 'copying';
    COMMIT;
    CALL router.go_on(who);
END $$;

-- Moves a bucket to another shard. At once new users sign up there; then one after the other the users follow. Cut short, it
-- is called again.
CREATE PROCEDURE router.move_bucket(which integer, target integer) LANGUAGE plpgsql AS $$
DECLARE
    source integer;
    number bigint;
    who uuid;
BEGIN
    PERFORM router.must_be_shard(target);
    -- No move changes who is apart while this is held.
    SELECT shard INTO source FROM router.bucket WHERE bucket = which FOR UPDATE;
    IF source IS NULL THEN
        RAISE EXCEPTION 'no bucket %', which USING ERRCODE = 'invalid_parameter_value';
    ELSIF source <> target THEN
        number := nextval('router.move_number');
        -- Whoever signs up meanwhile is told to try again.
        PERFORM on_shard.open(source, which, number, false);
        INSERT INTO router.apart (user_id, shard) SELECT r, source FROM on_shard.residents(source, which) AS r ON CONFLICT DO NOTHING;
        DELETE FROM router.apart AS a WHERE a.shard = target AND router.bucket_of(a.user_id) = which;
        PERFORM on_shard.open(target, which, number, true);
        UPDATE router.bucket SET shard = target WHERE bucket = which;
    END IF;
    COMMIT;
    FOR who IN SELECT a.user_id FROM router.apart AS a WHERE router.bucket_of(a.user_id) = which LOOP
        CALL router.go_on(who);
        CALL router.move_user(who, target);
    END LOOP;
END $$;
CREATE INDEX ON router.apart ((router.bucket_of(user_id)));

-- At the beginning: each bucket its shard, and open there.
INSERT INTO router.bucket (bucket, shard) SELECT b, b % 3 FROM generate_series(0, 1023) AS b;
SELECT on_shard.open(b.shard, b.bucket, 0, true) FROM router.bucket AS b;

REVOKE ALL ON ALL ROUTINES IN SCHEMA public, router, on_shard FROM public;
GRANT EXECUTE ON FUNCTION public.get_profile, public.get_profiles, public.sign_up, public.rename, public.subscribe, public.set_roles TO web;
GRANT EXECUTE ON FUNCTION router.shard_of, router.bucket_of, router.by_shard TO web;
