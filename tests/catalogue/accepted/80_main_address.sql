-- One row by partial unique indexes: a flag, alone and among the index's own columns, one of some states, what is not deleted.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('main', m.mail, 'current', c.mail, 'spare', s.mail, 'plan', l.title) AS document
FROM accounts_profile AS p
    LEFT JOIN accounts_address AS m ON m.profile_id = p.id AND m.main
    LEFT JOIN accounts_address AS c ON c.profile_id = p.id AND c.state = 'current'
    LEFT JOIN accounts_address AS s ON s.profile_id = p.id AND s.main = false AND s.gone IS NULL
    LEFT JOIN billing_plan AS l ON l.id = c.plan_id;
