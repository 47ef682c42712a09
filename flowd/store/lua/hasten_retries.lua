#!lua flags=allow-oom
-- Brings a slice of what waits forward, because the server's clock was put back: it would wait for so
-- much longer. Whoever hastens twice only has nodes run sooner.
--
-- KEYS  1 retries (zset)
-- ARGV  1 ms  2 rank of the first  3 rank of the last
-- RETURNS how many were brought forward
local found = redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[3], 'WITHSCORES')
for at = 1, #found, 2 do
  redis.call('ZADD', KEYS[1], found[at + 1] - ARGV[1], found[at])
end
return #found / 2
