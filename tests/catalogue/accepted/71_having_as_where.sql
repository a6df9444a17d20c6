-- Grouped in a LATERAL subquery by what is compared outside of it.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('by_status', (
        SELECT jsonb_object_agg(x.status, x.n) FROM (
            SELECT s.profile_id, s.status, count(*) AS n FROM billing_subscription AS s WHERE s.profile_id = p.id GROUP BY s.profile_id, s.status) AS x)) AS document
FROM accounts_profile AS p;
