#!lua
--- @use announce
--- @use count_times lazily
--- @use plan_look
--- @use server_ms
-- Makes a schedule, or changes it: from here on nothing is run by the old rule. What waits to be run by
-- that is dropped.
--
-- KEYS  1 schedule (hash)  2 due (zset)  3 schedules (zset)  4 the saved definition it runs (hash)
--       5 the schedules of that (set)  6 callbacks (zset)  7 its callback (hash)
-- ARGV  1 name  2 the revision it changes, empty where there is to be none  3 what it says (JSON)
--       4 its next time, ms, or empty  5 times of the old rule that are missed by this  6 the last of
--       them, ms  7 name of the saved definition  8 '1' where it has a callback
-- RETURNS 'put', 'stale' when it was changed meanwhile, or 'unknown' when no such definition is saved
local name, happened = ARGV[1], {}
local revision, queued_ms, workflow =
  unpack(redis.call('HMGET', KEYS[1], 'revision', 'queued_ms', 'workflow'))
if (revision or '') ~= ARGV[2] then
  return 'stale'
elseif redis.call('EXISTS', KEYS[4]) == 0 then
  return 'unknown'
end
redis.call('ZADD', KEYS[3], 0, name)
redis.call('SADD', KEYS[5], name)
if workflow and workflow ~= ARGV[7] then
  redis.call('SREM', 'flowd:definition:' .. workflow .. ':schedules', name)
end
if ARGV[8] == '1' then
  redis.call('HSET', KEYS[1], 'callback', 1)
else
  redis.call('HDEL', KEYS[1], 'callback')
  redis.pcall('ZREM', KEYS[6], 'schedule ' .. name)
  redis.call('DEL', KEYS[7])
end
if tonumber(ARGV[5]) > 0 then
  count_times(KEYS[1], name, 'missed', ARGV[5], ARGV[6], happened)
end
if queued_ms then
  count_times(KEYS[1], name, 'skipped', 1, queued_ms, happened)
end
redis.call('HDEL', KEYS[1], 'queued_ms', 'waits', 'error', 'failures')
-- Another one also when it was deleted and made again: whoever was slow meanwhile is not to take the one
-- for the other.
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'said', ARGV[3], 'workflow', ARGV[7], 'next_ms', ARGV[4],
  'revision', string.format('%.0f', math.max(time[1] * 1000000 + time[2], (revision or 0) + 1)))
plan_look(KEYS[2], name, ARGV[4], false, server_ms())
announce(happened)
return 'put'
