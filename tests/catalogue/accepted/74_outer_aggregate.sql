-- An aggregate that belongs to the query outside of the subquery where it stands.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('last', (SELECT l.title || ' ' || max(d.serial) FROM billing_plan AS l WHERE l.id = 'free')) AS document
FROM accounts_profile AS p LEFT JOIN accounts_device AS d ON d.profile_id = p.id
GROUP BY p.auth_id;
