-- Other profiles by two foreign keys to the same column: everybody in a company sees everybody in it.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('colleagues', (
        SELECT jsonb_agg(o.shown_name ORDER BY o.id) FROM accounts_profile AS o WHERE o.company_id = p.company_id AND o.id <> p.id)) AS document
FROM accounts_profile AS p;
