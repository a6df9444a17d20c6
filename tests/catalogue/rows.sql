-- A few rows in every table of tests/catalogue/schema.sql: so few that writers at random meet.
INSERT INTO geo_country VALUES (1, 'DE', 'Germany', true), (2, 'FR', 'France', true), (3, 'NP', 'Nepal', false), (4, 'CA', 'Canada', false);
INSERT INTO geo_locale VALUES (1, 'de', 'Deutsch'), (2, 'fr', 'Français'), (3, 'en', 'English');
INSERT INTO accounts_tenant VALUES (1, 'North'), (2, 'South'), (3, 'West');
INSERT INTO geo_currency VALUES ('EUR', 'Euro'), ('CAD', 'Dollar'), ('YE', 'Old Yen');
INSERT INTO accounts_company VALUES (1, 'Acme', true, 1, 'EUR'), (2, 'Bolt', true, 2, 'EUR'), (3, 'Corp', false, 3, 'YE'), (4, 'Dot', true, NULL, 'CAD');
INSERT INTO access_role VALUES (1, 'admin'), (2.0, 'editor'), (3, 'viewer'), (4.5, 'auditor');
INSERT INTO access_permission VALUES (1, 'read'), (2, 'write'), (3, 'delete'), (4, 'export');
INSERT INTO access_role_permission VALUES (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (4.50, 4);
INSERT INTO accounts_profile (id, auth_id, tenant_id, user_no, email, name, kind, manager_id, company_id, home_country, billing_country, locale, primary_role, tags, settings, created)
    SELECT n, ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 1 + n % 3, n, 'user' || n || '@example.com', CASE WHEN n % 4 > 0 THEN 'User ' || n END,
        (ARRAY['person', 'person', 'bot', 'guest'])[1 + n % 4]::account_kind, CASE WHEN n > 1 THEN 1 + n / 3 END, nullif(n % 5, 0), (ARRAY['DE', 'FR', 'NP', 'CA'])[1 + n % 4],
        (ARRAY['FR', 'DE', NULL])[1 + n % 3], (ARRAY['de', 'fr', 'en', NULL])[1 + n % 4], nullif(n % 4, 0), ARRAY['t' || n % 3], '{"beta": true}', '2024-01-01 12:00:00Z'::timestamptz + n * interval '1 day'
    FROM generate_series(1, 12) AS n;
INSERT INTO accounts_preference SELECT n, (ARRAY['dark', 'light'])[1 + n % 2], n % 3 = 0 FROM generate_series(1, 12) AS n WHERE n % 4 <> 2;
INSERT INTO accounts_device SELECT n, 1 + n * 5 % 12, 'S' || n, n % 3 > 0 FROM generate_series(1, 24) AS n;
INSERT INTO accounts_skill VALUES ('Rust', 3), ('SQL', 5), ('Tea', 1);
INSERT INTO accounts_profile_skill SELECT n, (ARRAY['rust', 'Sql', 'TEA'])[1 + n % 3], n FROM generate_series(1, 12) AS n WHERE n % 4 > 0;
INSERT INTO access_grant SELECT n, ('00000000-0000-4000-8000-' || lpad((1 + n * 7 % 12)::text, 12, '0'))::uuid, nullif(1 + n % 5, 5), (ARRAY[1, 2, 3, 4.5])[1 + n % 4] FROM generate_series(1, 16) AS n;
INSERT INTO hr_desk SELECT t, d, d FROM generate_series(1, 3) AS t, generate_series(1, 3) AS d;
INSERT INTO hr_seat SELECT 1 + n % 3, n, 1 + n % 3, '+49 ' || n FROM generate_series(1, 12) AS n WHERE n % 5 > 0;
INSERT INTO billing_plan VALUES ('free', 'Free of charge', 0), ('pro', 'Professional', 9.50), ('team', 'Team', 49);
INSERT INTO billing_feature VALUES (1, 'export', 'Export'), (2, 'api', 'API'), (3, 'seats', 'Seats');
INSERT INTO billing_plan_feature VALUES ('free', 'api', 10), ('pro', 'api', 100), ('pro', 'export', NULL), ('team', 'seats', 5), ('team', 'export', 7);
INSERT INTO billing_account SELECT n, n, (ARRAY['free', 'pro', 'team', NULL])[1 + n % 4], nullif(n % 4, 0), (ARRAY['EUR', 'USD'])[1 + n % 2] FROM generate_series(1, 12) AS n WHERE n % 5 > 0;
INSERT INTO billing_subscription SELECT n, 1 + n % 12, (ARRAY['free', 'pro', 'team'])[1 + n % 3], (ARRAY['active', 'trialing', 'canceled'])[1 + n % 3],
        '2024-03-01 00:00:00Z'::timestamptz + n % 5 * interval '1 month', (ARRAY['2100-01-01Z', '2020-01-01Z', NULL]::timestamptz[])[1 + n % 3] FROM generate_series(1, 16) AS n;
INSERT INTO billing_invoice SELECT n, 1 + n * 3 % 16, n * 1.5, n % 3 = 0 FROM generate_series(1, 20) AS n;
INSERT INTO people_person SELECT n, 'person' || n FROM generate_series(1, 12) AS n;
UPDATE accounts_profile SET person_id = 13 - id WHERE id % 6 > 0;
INSERT INTO people_membership SELECT n, 1 + n * 5 % 12, (ARRAY['free', 'pro', 'team'])[1 + n % 3], (ARRAY['gold', 'silver'])[1 + n % 2] FROM generate_series(1, 16) AS n;
INSERT INTO people_contact SELECT n, '+33 ' || n FROM generate_series(1, 12) AS n WHERE n % 4 > 0;
INSERT INTO accounts_address SELECT n, 1 + n % 12, 'mail' || n, n < 9, (ARRAY['current', 'past', NULL])[1 + n / 12], CASE WHEN n > 6 THEN now() END, (ARRAY['free', 'pro', 'team'])[1 + n - 12] FROM generate_series(1, 16) AS n;
