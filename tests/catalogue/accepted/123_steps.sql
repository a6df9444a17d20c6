-- Compared, but by no equality: the highest level that a number of the profile's reaches, and how many are beyond it; and what is there at all.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('level', (SELECT max(k.level) FROM accounts_skill AS k WHERE k.level <= p.user_no),
        'beyond', (SELECT count(*) FROM accounts_skill AS k WHERE k.level > p.user_no), 'plans', (SELECT count(*) FROM billing_plan AS l WHERE l.monthly > p.user_no),
        'any', EXISTS (SELECT FROM geo_currency)) AS document
FROM accounts_profile AS p;
