#!lua flags=allow-oom
-- Deletes a saved definition with all its versions, unless a schedule uses it. It is in no set any more.
--
-- KEYS  1 definitions (zset)  2 saved definition (hash)  3 the schedules that use it (set)
-- ARGV  1 name
-- RETURNS 'deleted' | 'unknown' | 'used', and the names of the schedules
local users = redis.call('SMEMBERS', KEYS[3])
if #users > 0 then
  return { 'used', unpack(users, 1, math.min(#users, 100)) }
end
redis.pcall('HDEL', 'flowd:sets', 'definition ' .. ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
return { redis.call('DEL', KEYS[2]) == 1 and 'deleted' or 'unknown' }
