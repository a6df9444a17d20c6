-- The profile itself comes through a view, with its key under another name there.
CREATE VIEW person AS SELECT p.auth_id AS who, p.id AS no, p.shown_name, p.locale AS lang FROM accounts_profile AS p WHERE p.kind IN ('person', 'guest');
CREATE VIEW document AS
SELECT x.who AS auth_id, jsonb_build_object('name', x.shown_name, 'language', l.label) AS document
FROM person AS x LEFT JOIN geo_locale AS l ON l.code = x.lang;
