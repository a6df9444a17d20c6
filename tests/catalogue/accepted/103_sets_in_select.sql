-- Functions that return sets, in SELECT lists: below aggregates, GROUP BY, DISTINCT and a UNION; of members, whose join
-- stands outside.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object(
        'tags', (SELECT jsonb_agg(x.tag ORDER BY x.tag) FROM (SELECT unnest(p.tags) AS tag) AS x),
        'keys', ARRAY(SELECT jsonb_object_keys(p.settings) AS key ORDER BY key),
        'first', (SELECT unnest(p.tags) AS tag ORDER BY tag LIMIT 1),
        'serials', (SELECT jsonb_agg(x.part ORDER BY x.part) FROM (SELECT DISTINCT d.profile_id, regexp_split_to_table(d.serial, '') AS part FROM accounts_device AS d) AS x
            WHERE x.profile_id = p.id),
        'statuses', (SELECT jsonb_object_agg(x.letter, x.n) FROM (
            SELECT string_to_table(s.status, NULL) AS letter, count(*) AS n FROM billing_subscription AS s WHERE s.profile_id = p.id GROUP BY 1) AS x),
        'both', (SELECT jsonb_agg(x.part ORDER BY x.part, x.who) FROM (
            SELECT d.profile_id AS who, string_to_table(d.serial, '1') AS part FROM accounts_device AS d
            UNION ALL SELECT s.profile_id, string_to_table(s.plan_id, 'r') FROM billing_subscription AS s) AS x WHERE x.who = p.id)) AS document
FROM accounts_profile AS p;
