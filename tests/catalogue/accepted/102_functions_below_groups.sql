-- Functions over members' columns in a subquery that groups, in a WITH query that is used twice, and in a nested view.
CREATE VIEW letters AS SELECT d.profile_id AS who, c.letter, count(*) AS n FROM accounts_device AS d, regexp_split_to_table(d.serial, '') AS c (letter) GROUP BY d.profile_id, c.letter;
CREATE VIEW document AS
WITH role AS (SELECT g.holder, n.letter, r.name FROM access_grant AS g JOIN access_role AS r ON r.id = g.role_id CROSS JOIN LATERAL regexp_split_to_table(r.name, '') AS n (letter))
SELECT p.auth_id, jsonb_build_object(
        'letters', (SELECT jsonb_object_agg(coalesce(l.letter, ''), l.n) FROM letters AS l WHERE l.who = p.id),
        'roles', (SELECT count(DISTINCT r.name) FROM role AS r WHERE r.holder = p.auth_id),
        'vowels', (SELECT count(*) FROM role AS r WHERE r.holder = p.auth_id AND r.letter IN ('a', 'e', 'i', 'o'))) AS document
FROM accounts_profile AS p;
