#!lua flags=allow-oom
--- @use steady_ms
-- Takes callbacks that are due: counts the attempt, and moves each ahead to when somebody else may
-- take it, so that two schedulers do not call at once and one that dies loses none.
--
-- KEYS  1 callbacks (zset)
-- ARGV  1 after how long an attempt that was not heard of may be repeated, ms  2 the most to take
-- RETURNS each that is called back about, an execution's id or `schedule <name>`, and how many attempts that
--         makes, in turn; last how many ms are left until the next is due, or an empty text when there is none
local now_ms = steady_ms()
local again_ms = now_ms + ARGV[1]
local taken = {}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[2])
for _, subject in ipairs(due) do
  local schedule = string.match(subject, '^schedule (.+)$')
  local prefix = schedule and 'flowd:schedule:' .. schedule or 'workflow:' .. subject
  local callback = prefix .. ':callback'
  local attempt = false
  if redis.call('EXISTS', schedule and prefix or prefix .. ':status') == 1 then
    -- An error where somebody has damaged the key; it must not hold up the others.
    attempt = redis.pcall('HINCRBY', callback, 'attempts', 1)
  end
  if type(attempt) == 'number' then
    taken[#taken + 1] = subject
    taken[#taken + 1] = attempt
    redis.call('HSET', callback, 'state', 'PENDING')
    redis.call('ZADD', KEYS[1], again_ms, subject)
  else
    redis.call('ZREM', KEYS[1], subject)
  end
end
local next_ms = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
taken[#taken + 1] = next_ms and math.max(0, math.ceil(next_ms - now_ms)) or ''
return taken
