-- Constant keys written otherwise: an array, and the constant first.
CREATE VIEW document AS
SELECT p.auth_id, jsonb_build_object('plans', (SELECT array_agg(l.title ORDER BY l.id) FROM billing_plan AS l WHERE l.id = ANY ('{pro,team}')),
        'dear', EXISTS (SELECT FROM billing_plan AS l WHERE 'free' = l.id AND l.monthly > 5)) AS document
FROM accounts_profile AS p;
