#!lua flags=allow-oom
-- Removes a schedule. What it has started goes on. It is in no set any more.
--
-- KEYS  1 schedule (hash)  2 holders (set)  3 due (zset)  4 schedules (zset)  5 callbacks (zset)  6 its
--       callback (hash)
-- ARGV  1 name
-- RETURNS 'deleted' or 'unknown'
if redis.call('ZREM', KEYS[4], ARGV[1]) == 0 and redis.call('EXISTS', KEYS[1]) == 0 then
  return 'unknown'
end
local workflow = redis.pcall('HGET', KEYS[1], 'workflow')
if type(workflow) == 'string' then
  redis.call('SREM', 'flowd:definition:' .. workflow .. ':schedules', ARGV[1])
end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.pcall('ZREM', 'flowd:schedules:missed', ARGV[1])
redis.pcall('HDEL', 'flowd:sets', 'schedule ' .. ARGV[1])
redis.pcall('ZREM', KEYS[5], 'schedule ' .. ARGV[1])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[6])
return 'deleted'
