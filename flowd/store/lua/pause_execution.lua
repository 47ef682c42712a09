#!lua flags=allow-oom
--- @use announce
--- @use leave_follow
--- @use list_status
--- @use note_halt
-- Lets no further node of an execution start. What runs goes on, and may end the execution. Nothing holds
-- up the `finally` of one that was cancelled: that cleans up.
--
-- KEYS  1 status (string)  2 stream  3 halted (string)  4 run (hash)  5 status of its parent (string),
--       where it is to follow that
-- ARGV  1 execution id  2 now, ms
-- RETURNS 'paused', 'moved' (its parent is paused no more), 'unknown', or the state that cannot be paused
local status = redis.pcall('GET', KEYS[1])
if KEYS[5] and redis.pcall('GET', KEYS[5]) ~= 'PAUSED' then
  return 'moved'
end
if status ~= 'RUNNING' then
  return status == 'PAUSED' and 'paused' or status or 'unknown'
elseif redis.pcall('HGET', KEYS[4], 'ends_as') == 'CANCELLED' then
  return 'CANCELLING'
end
redis.call('SET', KEYS[1], 'PAUSED')
list_status(ARGV[1], status, 'PAUSED')
note_halt(KEYS[2], KEYS[3])
leave_follow(ARGV[1], redis.pcall('HGET', KEYS[4], 'children'), 'hold', ARGV[2])
announce({ 'execution.paused', ARGV[1] })
return 'paused'
