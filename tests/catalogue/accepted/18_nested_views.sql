-- Views in views, two deep, with columns renamed on the way.
CREATE VIEW role_list AS
SELECT g.holder AS who, r.id AS role, r.name AS what FROM access_grant AS g JOIN access_role AS r ON g.role_id = r.id;
CREATE VIEW person_role (person, role, label) AS
SELECT l.who, l.role, 'role ' || l.what FROM role_list AS l;
CREATE VIEW document (auth_id, document) AS
SELECT p.auth_id, jsonb_build_object('labels', (SELECT array_agg(x.label ORDER BY x.role, x.label) FROM person_role AS x WHERE x.person = p.auth_id))
FROM accounts_profile AS p;
