-- The cache that an app would write by hand: row triggers that compute the document after
-- each change. They follow the same columns as the extension, but hold none of its
-- promises: two transactions that change one user can each leave out the other's change, a
-- subscription that ends stays in the document, and a plan's edit waits until every user
-- of it is written.

CREATE FUNCTION on_profile() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_profile u
    SET cached_profile = (SELECT d.document FROM profile_document d WHERE d.supabase_user_id = u.supabase_user_id)
    WHERE u.id = NEW.id;
    RETURN NULL;
END $$;

CREATE FUNCTION on_member() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE user_profile u
        SET cached_profile = (SELECT d.document FROM profile_document d WHERE d.supabase_user_id = u.supabase_user_id)
        WHERE u.id = OLD.user_id;
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND NEW.user_id <> OLD.user_id THEN
        UPDATE user_profile u
        SET cached_profile = (SELECT d.document FROM profile_document d WHERE d.supabase_user_id = u.supabase_user_id)
        WHERE u.id = NEW.user_id;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION on_plan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_profile u SET cached_profile = d.document
    FROM profile_document d
    WHERE d.supabase_user_id = u.supabase_user_id AND u.id IN (SELECT user_id FROM user_subscription WHERE plan_id = NEW.id);
    RETURN NULL;
END $$;

CREATE FUNCTION on_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE user_profile u SET cached_profile = d.document
    FROM profile_document d
    WHERE d.supabase_user_id = u.supabase_user_id AND u.id IN (SELECT user_id FROM user_role WHERE role_id = NEW.id);
    RETURN NULL;
END $$;

-- Not on cached_profile: so the triggers' own UPDATE does not fire them again.
CREATE TRIGGER cache AFTER INSERT OR UPDATE OF supabase_user_id, email, full_name, avatar_url, phone, company, job_title, timezone,
    language, is_active, is_verified, onboarding_completed, preferences, last_login, created_at, updated_at
    ON user_profile FOR EACH ROW EXECUTE FUNCTION on_profile();
CREATE TRIGGER cache AFTER INSERT OR DELETE OR UPDATE OF user_id, plan_id, status, current_period_end
    ON user_subscription FOR EACH ROW EXECUTE FUNCTION on_member();
CREATE TRIGGER cache AFTER INSERT OR DELETE OR UPDATE OF user_id, role_id
    ON user_role FOR EACH ROW EXECUTE FUNCTION on_member();
CREATE TRIGGER cache AFTER UPDATE ON subscription_plan FOR EACH ROW EXECUTE FUNCTION on_plan();
CREATE TRIGGER cache AFTER UPDATE ON role FOR EACH ROW EXECUTE FUNCTION on_role();
