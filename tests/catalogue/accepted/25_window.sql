-- Window functions inside a LATERAL subquery: over the rows of one profile.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('ranks', w.ranks) AS document
FROM accounts_profile AS p LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_array(x.status, x.n, x.before) ORDER BY x.id) AS ranks
    FROM (SELECT s.id, s.status, row_number() OVER (PARTITION BY s.status ORDER BY s.id) AS n, lag(s.status) OVER (ORDER BY s.id) AS before
        FROM billing_subscription AS s WHERE s.profile_id = p.id) AS x) AS w ON true;
