-- What a partial index takes for NOT NULL, an equality says; and its predicate in WHERE, above the outer join.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('plan', a.plan_id, 'before', o.mail, 'main', m.mail) AS document
FROM accounts_profile AS p
    LEFT JOIN billing_account AS a ON a.profile_id = p.id
    LEFT JOIN accounts_address AS o ON a.plan_id = o.plan_id AND o.state = 'past'
    LEFT JOIN (SELECT x.profile_id, x.mail FROM accounts_address AS x WHERE x.main IS TRUE) AS m ON m.profile_id = p.id
WHERE p.kind = 'person';
