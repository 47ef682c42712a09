#!lua flags=allow-oom
--- @use steady_ms
-- Gives back a callback that was taken and not tried: its receiver has enough to do. The attempt does
-- not count. Said twice it is done once.
--
-- KEYS  1 callbacks (zset)  2 callback (hash)
-- ARGV  1 id of the execution, or `schedule <name>`  2 attempt  3 how long until it is taken again, ms
-- RETURNS 'postponed', or 'stale' when a later attempt began or it has been settled
local attempts, state, before = unpack(redis.call('HMGET', KEYS[2], 'attempts', 'state', 'before'))
if attempts ~= ARGV[2] or state ~= 'PENDING' or before == attempts then
  return 'stale'
end
redis.call('HINCRBY', KEYS[2], 'attempts', -1)
redis.call('ZADD', KEYS[1], 'XX', steady_ms() + ARGV[3], ARGV[1])
return 'postponed'
