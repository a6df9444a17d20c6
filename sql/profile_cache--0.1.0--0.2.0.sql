-- From 0.1.0 to 0.2.0. The tables stay as they are, so that sessions that have loaded the library of 0.1.0 go on.

COMMENT ON TABLE profile_cache.failure IS 'profiles whose document could not be computed or written, so that reads use the view until it can';

-- Every session looks again.
UPDATE profile_cache.attachment SET problem = problem;

COMMENT ON COLUMN profile_cache.status.preloaded IS 'whether the server has preloaded the library, as the background worker needs';
COMMENT ON COLUMN profile_cache.status.worker IS 'what the background worker of this database does, or why there is none';
