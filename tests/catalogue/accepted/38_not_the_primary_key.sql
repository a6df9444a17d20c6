-- Foreign keys to columns that are not the primary key: the locale, and features by their code.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('language', l.label, 'labels', (
        SELECT array_agg(f.label ORDER BY f.id) FROM billing_subscription AS s JOIN billing_plan_feature AS x ON x.plan_id = s.plan_id JOIN billing_feature AS f ON f.code = x.feature
        WHERE s.profile_id = p.id)) AS document
FROM accounts_profile AS p LEFT JOIN geo_locale AS l ON l.code = p.locale;
