-- On the router: a fourth shard, on which shard.sql and subscribe.sql have been run, takes a quarter of the buckets. Cut short,
-- the second statement is run again.
ALTER SERVER users OPTIONS (ADD p3 :'shard3');
SELECT format('CALL router.move_bucket(%s, 3)', bucket) FROM router.bucket WHERE bucket % 4 = 3 ORDER BY bucket \gexec
