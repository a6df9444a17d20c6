-- A nested view with security_barrier, aggregated for one profile.
CREATE VIEW open_invoice WITH (security_barrier) AS
SELECT s.profile_id, i.id, i.total FROM billing_invoice AS i JOIN billing_subscription AS s ON s.id = i.subscription_id WHERE NOT i.paid;
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('open', (SELECT sum(o.total) FROM open_invoice AS o WHERE o.profile_id = p.id)) AS document
FROM accounts_profile AS p;
