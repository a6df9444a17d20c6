-- The same without the plan's table: two foreign keys to the same column, equal to each other.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('quotas', (
        SELECT jsonb_agg(x.quota ORDER BY x.feature) FROM billing_subscription AS s JOIN billing_plan_feature AS x ON x.plan_id = s.plan_id
        WHERE s.profile_id = p.id AND s.status = 'active')) AS document
FROM accounts_profile AS p;
