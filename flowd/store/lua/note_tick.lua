#!lua flags=allow-oom
-- Notes that a scheduler ticked. A script, because a full server refuses the plain command, and what
-- a scheduler heals it heals there too.
--
-- KEYS  1 scheduler (string)
-- ARGV  1 now, ms  2 how long it counts, ms
-- RETURNS 'noted'
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'noted'
