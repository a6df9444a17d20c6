-- A foreign key over a collation that ignores case: 'rust' refers to 'Rust'.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('skills', (
        SELECT jsonb_agg(jsonb_build_array(s.name, s.level, x.years) ORDER BY s.name) FROM accounts_profile_skill AS x JOIN accounts_skill AS s ON s.name = x.skill WHERE x.profile_id = p.id)) AS document
FROM accounts_profile AS p;
