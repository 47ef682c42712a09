#!lua flags=allow-oom
-- Gives a worker its lease. On a full server too: what is queued there has to end, or nothing makes room.
--
-- KEYS  1 leases (hash)  2 workers (hash)
-- ARGV  1 consumer  2 owner (JSON)
-- RETURNS 'enrolled'
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], 0)
return 'enrolled'
