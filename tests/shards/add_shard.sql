-- On the router: a fourth shard, on which shard.sql and subscribe.sql have been run.
ALTER SERVER users OPTIONS (ADD p3 :'shard3');
