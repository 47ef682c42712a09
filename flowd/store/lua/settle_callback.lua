#!lua flags=allow-oom
--- @use dating_ms
-- Writes down how one attempt of a callback went. Only the newest attempt counts: one that came
-- back after its time must not undo what a later one has reached.
--
-- KEYS  1 callbacks (zset)  2 status of the execution (string), or the schedule (hash)  3 callback (hash)
-- ARGV  1 id of the execution, or `schedule <name>`  2 attempt  3 PENDING, DELIVERED or FAILED  4 how
--       long until it is tried again, ms, or ''  5 status code of the answer, or ''  6 error, or ''  7 now, ms; of a schedule also
--       8 missed and  9 skipped times that were in the call. Those that came since are told by another one
-- RETURNS 'settled', 'stale', or 'unknown' for one that is gone
if redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[3])
  return 'unknown'
end
local attempts, state, before = unpack(redis.call('HMGET', KEYS[3], 'attempts', 'state', 'before'))
if attempts ~= ARGV[2] or state ~= 'PENDING' or before == attempts then
  return 'stale'
end
redis.call('HSET', KEYS[3], 'state', ARGV[3], 'last_status', ARGV[5],
  'last_error', ARGV[6], 'delivered_ms', ARGV[3] == 'DELIVERED' and ARGV[7] or '')
local left = 0
if ARGV[8] and ARGV[3] ~= 'PENDING' then
  -- Not the negative of 0: Redis 7 is given that as '-0', which is no integer to it.
  left = redis.call('HINCRBY', KEYS[3], 'missed', 0 - ARGV[8])
    + redis.call('HINCRBY', KEYS[3], 'skipped', 0 - ARGV[9])
end
if left > 0 then
  redis.call('HSET', KEYS[3], 'state', 'PENDING', 'before', ARGV[2])
  redis.call('ZADD', KEYS[1], dating_ms(), ARGV[1])
elseif ARGV[3] == 'PENDING' then
  redis.call('ZADD', KEYS[1], dating_ms() + ARGV[4], ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 'settled'
