-- A cast that keeps the value, written out, below a subquery.
CREATE VIEW document AS SELECT p.auth_id, jsonb_build_object('n', (
        SELECT count(*) FROM (SELECT d.profile_id::bigint AS who FROM accounts_device AS d) AS u WHERE u.who = p.id)) AS document
    FROM accounts_profile AS p;
