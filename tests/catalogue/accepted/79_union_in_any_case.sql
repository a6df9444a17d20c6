-- A UNION, a grouping and a window under a collation that ignores case, and conditions under the same.
CREATE DOMAIN skill_name AS text COLLATE any_case;
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('levels', (SELECT jsonb_agg(ARRAY[k.level, k.of, k.doubled] ORDER BY g.skill) FROM accounts_profile_skill AS g
        CROSS JOIN LATERAL (SELECT max(u.level) AS level, max(u.n) AS of, max(u.doubled) AS doubled FROM (
            SELECT s.name::skill_name AS name, max(s.level) AS level, count(*) AS n, count(*) AS doubled FROM accounts_skill AS s GROUP BY s.name::skill_name
            UNION SELECT s.name, s.level, count(*) OVER (PARTITION BY s.name), 2 * s.level FROM accounts_skill AS s) AS u WHERE u.name = g.skill) AS k
        WHERE g.profile_id = p.id)) AS document
FROM accounts_profile AS p;
