#!lua
--- @use admit_waiters
--- @use is_live
-- Takes places back from executions that do not run, and starts who waits for those that are free. Whoever
-- ends gives its own back in the same step; this is for what a hand, or a server that was restored, has
-- taken out.
--
-- KEYS  1 active (set)  2 stream  3 holders (zset)  4 waiters (zset)
-- ARGV  1 now, ms  2… of some that hold a place, or wait for one, the digest of the key and the execution
-- RETURNS how many were started
local started = 0
for at = 2, #ARGV, 2 do
  local status = redis.pcall('GET', 'workflow:' .. ARGV[at + 1] .. ':status')
  if not is_live(status) and status ~= 'CANCELLING' then
    redis.call('ZREM', KEYS[3], ARGV[at] .. ' ' .. ARGV[at + 1])
  end
  if ARGV[at] ~= ARGV[at + 2] then
    started = started + admit_waiters(KEYS[2], KEYS[1], ARGV[at], ARGV[1])
  end
end
return started
