-- On a shard: plans and roles begin to come. What is there already is copied first.
CREATE SUBSCRIPTION :"name" CONNECTION :'source' PUBLICATION dimensions WITH (slot_name = :'name', create_slot = false);
