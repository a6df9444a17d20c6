-- One CTE, read twice, each time for the same profile.
CREATE VIEW document AS
WITH held AS NOT MATERIALIZED (
    SELECT g.holder, g.id, r.name FROM access_grant AS g JOIN access_role AS r ON r.id = g.role_id)
SELECT p.auth_id, jsonb_build_object(
        'n', (SELECT count(*) FROM held WHERE held.holder = p.auth_id),
        'names', (SELECT jsonb_agg(h.name ORDER BY h.id) FROM held AS h WHERE h.holder = p.auth_id)) AS document
FROM accounts_profile AS p;
