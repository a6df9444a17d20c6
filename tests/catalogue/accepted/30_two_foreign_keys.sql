-- Two foreign keys to one table, one of them compared with the other's country too.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('home', h.name, 'billing', b.name, 'same', h.id = b.id, 'eu', h.eu OR b.eu) AS document
FROM accounts_profile AS p
    LEFT JOIN geo_country AS h ON h.iso = p.home_country
    LEFT JOIN geo_country AS b ON b.iso = p.billing_country;
