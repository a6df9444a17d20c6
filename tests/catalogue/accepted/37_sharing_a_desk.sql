-- Who else sits at one's desk: through the desk's composite key, without the desk, back to other profiles.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('beside', (
        SELECT jsonb_agg(q.name ORDER BY q.id)
        FROM hr_seat AS s JOIN hr_seat AS o ON o.tenant_id = s.tenant_id AND o.desk_no = s.desk_no JOIN accounts_profile AS q ON q.tenant_id = o.tenant_id AND q.user_no = o.user_no
        WHERE s.tenant_id = p.tenant_id AND s.user_no = p.user_no AND q.id <> p.id)) AS document
FROM accounts_profile AS p;
