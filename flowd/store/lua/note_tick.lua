#!lua flags=allow-oom
--- @use server_ms
-- Notes that a scheduler ticked. A script, because a full server refuses the plain command, and what
-- a scheduler heals it heals there too.
--
-- KEYS  1 scheduler (string)
-- ARGV  1 how long it counts, ms
-- RETURNS 'noted'
redis.call('SET', KEYS[1], server_ms(), 'PX', ARGV[1])
return 'noted'
