-- Beside the app's own triggers, rules and functions: whatever they change, cancel, write or read
-- in the middle of a statement, what is served is what the view says. Ours must not break their
-- statements (27000), and theirs must not be fooled by a half-written state.
\set ECHO none
\i include/tables.sql
\i include/check.sql
\i include/output.sql
CREATE EXTENSION profile_cache;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
\set check 'SELECT state(); SELECT * FROM pending(); SELECT * FROM wrong();'
CREATE TABLE history (n int GENERATED ALWAYS AS IDENTITY, what text, user_id bigint, document jsonb, served_from text);
-- DDL distrusts everything, hence a refresh behind each.
\set ECHO all

-- A BEFORE ROW trigger that changes used columns, before ours and after ours (attach() warns of
-- the latter): the change is in the document.
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.email := upper(NEW.email); RETURN NEW; END $$;
CREATE TRIGGER aa_first BEFORE INSERT OR UPDATE ON user_profile FOR EACH ROW EXECUTE FUNCTION shout();
CALL profile_cache.refresh();
UPDATE user_profile SET note = 'shouts' WHERE id = 1;
SELECT get_profile(u(1)) ->> 'email';
ALTER TRIGGER aa_first ON user_profile RENAME TO zzz_last;
SELECT profile_cache.attach();
CALL profile_cache.refresh();
UPDATE user_profile SET id = id WHERE id = 2;
SELECT get_profile(u(2)) ->> 'email';
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (6, u(6), 'six');
:check
-- One behind ours that puts an old stamp on another document.
CREATE OR REPLACE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.cached_profile := '{"forged": true}';
    NEW.cached_profile_epoch := (SELECT current FROM profile_cache.epoch);
    NEW.profile_cache_updated_at := '2000-01-01';
    RETURN NEW;
END $$;
UPDATE user_profile SET note = 'forged' WHERE id = 3;
UPDATE user_profile SET id = id WHERE id = 4;
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (7, u(7), 'forged');
:check
-- One that restores the whole row, ours included: nothing has changed then.
CREATE OR REPLACE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
UPDATE user_profile SET note = 'cancelled' WHERE id = 5;
:check
-- One that cancels the row, before and after ours.
CREATE OR REPLACE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
UPDATE user_profile SET note = 'cancelled' WHERE id = 5;
INSERT INTO user_profile (id, supabase_user_id, email) VALUES (8, u(8), 'cancelled');
ALTER TRIGGER zzz_last ON user_profile RENAME TO aa_first;
CALL profile_cache.refresh();
UPDATE user_profile SET note = 'cancelled' WHERE id = 5;
:check
DROP TRIGGER aa_first ON user_profile;
CALL profile_cache.refresh();
DELETE FROM user_profile WHERE id > 5;

-- A history trigger that reads the document in the middle of the statement: the view's, never a
-- half-changed cache; its NULL changes nothing.
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO history (what, user_id, document, served_from)
    SELECT TG_WHEN || ' ' || TG_OP, p.id, get_profile(p.supabase_user_id), profile_cache.explain(p.supabase_user_id) ->> 'served_from'
    FROM user_profile AS p WHERE p.id = 1;
    RETURN CASE WHEN TG_WHEN = 'AFTER' OR TG_LEVEL = 'STATEMENT' THEN NULL WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER aa_before BEFORE UPDATE ON user_profile FOR EACH ROW EXECUTE FUNCTION remember();
CREATE TRIGGER aa_after AFTER UPDATE ON user_profile FOR EACH ROW EXECUTE FUNCTION remember();
CREATE TRIGGER aa_statement AFTER UPDATE ON user_profile FOR EACH STATEMENT EXECUTE FUNCTION remember();
CREATE TRIGGER zz_statement AFTER UPDATE ON user_profile FOR EACH STATEMENT EXECUTE FUNCTION remember();
CALL profile_cache.refresh();
UPDATE user_profile SET email = 'remembered' WHERE id = 1;
SELECT what, document ->> 'email', served_from FROM history ORDER BY n;
-- Nothing of ours was heard by it: our own write fires no trigger.
SELECT count(*) FROM history;
:check
CREATE TRIGGER aa_after AFTER INSERT OR DELETE ON user_role FOR EACH ROW EXECUTE FUNCTION remember();
CALL profile_cache.refresh();
TRUNCATE history;
INSERT INTO user_role VALUES (10, 1, 2);
DELETE FROM user_role WHERE id = 10;
SELECT what, jsonb_array_length(document -> 'roles'), served_from FROM history ORDER BY n;
:check
DROP TRIGGER aa_before ON user_profile;
DROP TRIGGER aa_after ON user_profile;
DROP TRIGGER aa_statement ON user_profile;
DROP TRIGGER zz_statement ON user_profile;
DROP TRIGGER aa_after ON user_role;

-- Triggers on the profile that write a member, before and after the row and after the statement:
-- where our write would break the app's statement, the profile is left pending.
CREATE FUNCTION grant_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_role SELECT coalesce(max(id), 0) + 1, 1, 2 FROM user_role;
    RETURN CASE WHEN TG_LEVEL = 'ROW' THEN NEW END;
END $$;
CREATE TRIGGER aa BEFORE UPDATE ON user_profile FOR EACH ROW EXECUTE FUNCTION grant_role();
CALL profile_cache.refresh();
UPDATE user_profile SET note = 'before row' WHERE id IN (1, 2);
:check
CALL profile_cache.refresh();
DROP TRIGGER aa ON user_profile;
CREATE TRIGGER aa AFTER UPDATE ON user_profile FOR EACH ROW EXECUTE FUNCTION grant_role();
CALL profile_cache.refresh();
UPDATE user_profile SET note = 'after row' WHERE id IN (1, 2);
:check
CALL profile_cache.refresh();
DROP TRIGGER aa ON user_profile;
CREATE TRIGGER aa BEFORE UPDATE ON user_profile FOR EACH STATEMENT EXECUTE FUNCTION grant_role();
CREATE TRIGGER zz AFTER UPDATE ON user_profile FOR EACH STATEMENT EXECUTE FUNCTION grant_role();
CALL profile_cache.refresh();
UPDATE user_profile SET note = 'statement' WHERE id IN (1, 2);
:check
CALL profile_cache.refresh();
:check
DROP TRIGGER aa ON user_profile;
DROP TRIGGER zz ON user_profile;

-- Triggers on a member that write the profile, before and after; Django's F() counters do that.
CREATE FUNCTION count_roles() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_profile SET note = (SELECT count(*) FROM user_role WHERE user_id = NEW.user_id) WHERE id = NEW.user_id;
    RETURN NEW;
END $$;
CREATE TRIGGER b BEFORE INSERT OR UPDATE ON user_role FOR EACH ROW EXECUTE FUNCTION count_roles();
CREATE TRIGGER a AFTER INSERT OR UPDATE ON user_role FOR EACH ROW EXECUTE FUNCTION count_roles();
CALL profile_cache.refresh();
INSERT INTO user_role VALUES (20, 3, 1), (21, 3, 2), (22, 4, 1);
:check
SELECT get_profile(u(3)) ->> 'note';
CALL profile_cache.refresh();
UPDATE user_role SET user_id = 4 WHERE user_id = 3;
:check
CALL profile_cache.refresh();
:check
DROP TRIGGER a ON user_role;
DROP TRIGGER b ON user_role;

-- A trigger on the profile that updates the profile again (27000 would be its own fault in
-- BEFORE; AFTER is fine), and one on a dimension that writes profiles.
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 3 THEN
        UPDATE user_profile SET note = note || '+' WHERE id IN (1, 2);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER aa AFTER UPDATE OF note ON user_profile FOR EACH ROW EXECUTE FUNCTION again();
CALL profile_cache.refresh();
UPDATE user_profile SET note = 'x' WHERE id = 1;
SELECT get_profile(u(1)) ->> 'note', get_profile(u(2)) ->> 'note';
:check
CALL profile_cache.refresh();
CREATE TRIGGER aa AFTER UPDATE ON subscription_plan FOR EACH ROW EXECUTE FUNCTION again();
CALL profile_cache.refresh();
UPDATE subscription_plan SET display_name = 'Pro 2' WHERE id = 'pro';
:check
CALL profile_cache.refresh();
:check
DROP TRIGGER aa ON user_profile;
DROP TRIGGER aa ON subscription_plan;

-- A trigger that catches its own failure: what failed inside leaves no statement in flight.
CREATE FUNCTION catches() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        UPDATE user_role SET role_id = role_id / 0;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
    BEGIN
        INSERT INTO user_profile (id, supabase_user_id) VALUES (1, u(1));
    EXCEPTION WHEN unique_violation THEN NULL;
    END;
    RETURN NEW;
END $$;
CREATE TRIGGER aa AFTER UPDATE ON user_profile FOR EACH ROW EXECUTE FUNCTION catches();
CALL profile_cache.refresh();
UPDATE user_profile SET note = 'caught' WHERE id IN (1, 2);
:check
DROP TRIGGER aa ON user_profile;
CALL profile_cache.refresh();
BEGIN;
SAVEPOINT a;
UPDATE user_profile SET id = id / 0;
ROLLBACK TO a;
SELECT state();
COMMIT;

-- Deferred constraint triggers of the app's write when the transaction commits.
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_profile SET note = 'at commit' WHERE id = NEW.id AND note IS DISTINCT FROM 'at commit';
    INSERT INTO user_role SELECT max(id) + 1, 5, 1 FROM user_role;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON user_profile DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
CALL profile_cache.refresh();
BEGIN;
UPDATE user_profile SET note = 'before' WHERE id = 1;
:check
COMMIT;
:check
SELECT get_profile(u(1)) ->> 'note', jsonb_array_length(get_profile(u(5)) -> 'roles');
DROP TRIGGER late ON user_profile;
CALL profile_cache.refresh();
CALL profile_cache.refresh();
DELETE FROM user_role WHERE id > 20;

-- Volatile functions in RETURNING and in SET read and write in the middle of the statement.
CREATE FUNCTION reads(k uuid) RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN (get_profile(k) ->> 'email') || ' from ' || (profile_cache.explain(k) ->> 'served_from'); END $$;
UPDATE user_profile SET email = 'returned' WHERE id = 1 RETURNING email, reads(supabase_user_id), get_profile(supabase_user_id) ->> 'email' AS "the statement's own snapshot";
UPDATE user_profile SET email = 'set', note = reads(supabase_user_id) WHERE id = 1 RETURNING note;
CREATE FUNCTION writes(n bigint) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO user_role SELECT max(id) + 1, n, 1 FROM user_role;
    UPDATE subscription_plan SET ai_daily_limit = ai_daily_limit + 1 WHERE id = 'team';
    RETURN 'written';
END $$;
UPDATE user_profile SET email = 'writes', note = writes(id) WHERE id IN (1, 2);
:check
CALL profile_cache.refresh();
UPDATE user_profile SET email = 'returns' WHERE id IN (1, 2) RETURNING writes(id), reads(supabase_user_id);
:check
CALL profile_cache.refresh();
UPDATE user_role SET role_id = 2 WHERE id = 1 AND writes(2) = 'written' AND reads(u(1)) IS NOT NULL;
:check
CALL profile_cache.refresh();
SELECT count(writes(id)), count(reads(supabase_user_id)) FROM user_profile;
:check
CALL profile_cache.refresh();
:check

-- Rules: DO ALSO, DO INSTEAD, a soft delete; a rule on a member that writes the profile.
CREATE RULE log AS ON UPDATE TO user_profile DO ALSO INSERT INTO history (what, user_id) VALUES ('rule', NEW.id);
CREATE RULE soft AS ON DELETE TO user_profile DO INSTEAD UPDATE user_profile SET note = 'deleted' WHERE id = OLD.id;
CREATE RULE follow AS ON INSERT TO user_role DO ALSO UPDATE user_profile SET note = 'followed' WHERE id = NEW.user_id;
CALL profile_cache.refresh();
TRUNCATE history;
UPDATE user_profile SET email = 'ruled' WHERE id = 1;
DELETE FROM user_profile WHERE id = 2;
INSERT INTO user_role VALUES (100, 3, 1);
:check
SELECT what, user_id FROM history;
SELECT get_profile(u(2)) ->> 'note', get_profile(u(3)) ->> 'note';
-- Our own write follows no rule, so history has heard of the statements alone, also while refreshing.
SELECT profile_cache.invalidate_all();
CALL profile_cache.refresh();
SELECT count(*) FROM history;
DROP RULE log ON user_profile;
DROP RULE soft ON user_profile;
DROP RULE follow ON user_role;

-- A soft delete by trigger: an UPDATE of the same row inside its DELETE, which is cancelled.
CREATE FUNCTION soft_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_profile SET note = 'soft' WHERE id = OLD.id;
    RETURN NULL;
END $$;
CREATE TRIGGER soft BEFORE DELETE ON user_profile FOR EACH ROW EXECUTE FUNCTION soft_delete();
CALL profile_cache.refresh();
DELETE FROM user_profile WHERE id = 2;
:check
SELECT get_profile(u(2)) ->> 'note';
CALL profile_cache.refresh();
DROP TRIGGER soft ON user_profile;

-- The replication role: other triggers keep still, ours do not.
SET session_replication_role = replica;
UPDATE user_profile SET note = 'replica' WHERE id = 1;
INSERT INTO user_role VALUES (101, 1, 3);
UPDATE role SET permissions = '"replica"' WHERE id = 3;
:check
RESET session_replication_role;
CALL profile_cache.refresh();
:check

-- TRUNCATE … CASCADE takes the profiles themselves.
BEGIN;
TRUNCATE user_profile CASCADE;
INSERT INTO user_profile (id, supabase_user_id) VALUES (1, u(1));
:check
ROLLBACK;
:check

-- Other people's statements on the profile inside ours: none of them failed, nothing is left over.
SELECT * FROM profile_cache.failure;
SELECT warnings FROM profile_cache.status;
