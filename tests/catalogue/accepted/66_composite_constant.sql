-- A composite key by constants, one in a list on the other side: everyone sees that desk, and two plans.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('lobby', d.floor, 'plans', (SELECT array_agg(l.title ORDER BY l.id) FROM billing_plan AS l WHERE l.id = ANY ('{pro,team}')),
        'dear', EXISTS (SELECT FROM billing_plan AS l WHERE 'free' = l.id AND l.monthly > 5)) AS document
FROM accounts_profile AS p LEFT JOIN hr_desk AS d ON d.tenant_id = 1 AND 2 = d.desk_no;
