#!lua flags=allow-oom
-- Takes callbacks that are due: counts the attempt, and moves each ahead to when somebody else may
-- take it, so that two schedulers do not call at once and one that dies loses none.
--
-- KEYS  1 callbacks (zset)
-- ARGV  1 now, ms  2 when an attempt that was not heard of may be repeated, ms  3 the most to take
-- RETURNS each id and how many attempts that makes, in turn; last when the next is due, ms, or ''
local taken = {}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, execution_id in ipairs(due) do
  local callback = 'workflow:' .. execution_id .. ':callback'
  local attempt = false
  if redis.call('EXISTS', 'workflow:' .. execution_id .. ':status') == 1 then
    -- An error where somebody has damaged the key; it must not hold up the others.
    attempt = redis.pcall('HINCRBY', callback, 'attempts', 1)
  end
  if type(attempt) == 'number' then
    taken[#taken + 1] = execution_id
    taken[#taken + 1] = attempt
    redis.call('HSET', callback, 'state', 'PENDING', 'next_ms', ARGV[2])
    redis.call('ZADD', KEYS[1], ARGV[2], execution_id)
  else
    redis.call('ZREM', KEYS[1], execution_id)
  end
end
taken[#taken + 1] = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or ''
return taken
