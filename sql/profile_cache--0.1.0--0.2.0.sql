-- From 0.1.0 to 0.2.0. The tables stay as they are, so that sessions that have loaded the library of 0.1.0 go on.

COMMENT ON TABLE profile_cache.failure IS 'profiles whose document could not be computed or written, so that reads use the view until it can';

ALTER TABLE profile_cache.pending_epoch ADD COLUMN definition pg_catalog.int8;
COMMENT ON COLUMN profile_cache.pending_epoch.definition IS 'a hash of the definition in whose words the link is; under another one everything is concerned';

-- Every session looks again.
UPDATE profile_cache.attachment SET problem = problem;
