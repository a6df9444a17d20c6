-- A subquery inside a subquery that refers to the profile two levels up.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('skills', (
        SELECT jsonb_agg(jsonb_build_object('skill', s.skill, 'open_invoices', (
                SELECT count(*) FROM billing_invoice AS i JOIN billing_subscription AS b ON b.id = i.subscription_id
                WHERE b.profile_id = p.id AND NOT i.paid AND s.years > 2)) ORDER BY s.skill)
        FROM accounts_profile_skill AS s WHERE s.profile_id = p.id)) AS document
FROM accounts_profile AS p;
