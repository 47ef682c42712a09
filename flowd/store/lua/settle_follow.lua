#!lua flags=allow-oom
-- Ends the continuations by which the children of an execution follow it, if its state is still the one
-- they were brought to; else it is begun anew.
--
-- KEYS  1 status (string)  2 continuations (zset)
-- ARGV  1 execution id  2 how they followed, see leave_follow  3 the status that was seen, or empty
-- RETURNS 'settled' or 'moved'
local member, how, status = 'follow ' .. ARGV[1] .. ' ', ARGV[2], redis.pcall('GET', KEYS[1]) or ''
if status ~= ARGV[3] then
  return 'moved'
end
-- More was done than what the others ask for.
redis.pcall('ZREM', KEYS[2], member)
if how ~= '' or status ~= 'RUNNING' and status ~= 'PAUSED' then
  redis.pcall('ZREM', KEYS[2], member .. 'hold')
end
if how == 'force' then
  redis.pcall('ZREM', KEYS[2], member .. 'force')
end
return 'settled'
