-- From 0.1.0 to 0.2.0. The tables stay as they are, so that sessions that have loaded the library of 0.1.0 go on.

COMMENT ON TABLE profile_cache.failure IS 'profiles whose document could not be computed or written, so that reads use the view until it can';

-- Every session looks again.
UPDATE profile_cache.attachment SET problem = problem;
