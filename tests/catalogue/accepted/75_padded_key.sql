-- A foreign key of type char(3), whose values are padded with blanks.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('company', c.name, 'currency', m.name, 'code', m.code) AS document
FROM accounts_profile AS p LEFT JOIN accounts_company AS c ON c.id = p.company_id LEFT JOIN geo_currency AS m ON m.code = c.currency;
