-- A CTE of all devices, materialized: attach() warns that each read computes it, and it is right all the same.
CREATE VIEW document AS
WITH d AS MATERIALIZED (SELECT d.profile_id, d.serial, d.id FROM accounts_device AS d)
SELECT p.auth_id, jsonb_build_object('devices', (SELECT jsonb_agg(d.serial ORDER BY d.id) FROM d WHERE d.profile_id = p.id)) AS document
FROM accounts_profile AS p;
