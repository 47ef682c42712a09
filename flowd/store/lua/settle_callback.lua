#!lua flags=allow-oom
--- @use dating_ms
-- Writes down how one attempt of a callback went. Only the newest attempt counts: one that came
-- back after its time must not undo what a later one has reached.
--
-- KEYS  1 callbacks (zset)  2 status (string)  3 callback (hash)
-- ARGV  1 execution id  2 attempt  3 PENDING, DELIVERED or FAILED  4 how long until it is tried again,
--       ms, or ''  5 status code of the answer, or ''  6 error, or ''  7 now, ms
-- RETURNS 'settled', 'stale', or 'unknown' for an execution that is gone
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[3])
  return 'unknown'
end
local now = redis.call('HMGET', KEYS[3], 'attempts', 'state')
if now[1] ~= ARGV[2] or now[2] ~= 'PENDING' then
  return 'stale'
end
redis.call('HSET', KEYS[3], 'state', ARGV[3], 'last_status', ARGV[5],
  'last_error', ARGV[6], 'delivered_ms', ARGV[3] == 'DELIVERED' and ARGV[7] or '')
if ARGV[3] == 'PENDING' then
  redis.call('ZADD', KEYS[1], dating_ms() + ARGV[4], ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 'settled'
