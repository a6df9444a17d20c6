-- UNION, which takes duplicates away: within one profile that is no other than UNION ALL.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('met', (
        SELECT jsonb_agg(u.no ORDER BY u.no) FROM (SELECT g.granted_by AS no FROM access_grant AS g WHERE g.holder = p.auth_id
            UNION SELECT a.payer FROM billing_account AS a WHERE a.profile_id = p.id UNION SELECT p.manager_id) AS u)) AS document
FROM accounts_profile AS p;
