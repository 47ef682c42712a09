#!lua flags=allow-oom
--- @use announce
--- @use note_halt
-- Lets no further node of an execution start. What runs goes on, and may end the execution. Nothing holds
-- up the `finally` of one that was cancelled: that cleans up.
--
-- KEYS  1 status (string)  2 stream  3 halted (string)  4 run (hash)
-- ARGV  1 execution id
-- RETURNS 'paused', 'unknown', or the state that cannot be paused
local status = redis.pcall('GET', KEYS[1])
if status ~= 'RUNNING' then
  return status == 'PAUSED' and 'paused' or status or 'unknown'
elseif redis.pcall('HGET', KEYS[4], 'ends_as') == 'CANCELLED' then
  return 'CANCELLING'
end
redis.call('SET', KEYS[1], 'PAUSED')
note_halt(KEYS[2], KEYS[3])
announce({ 'execution.paused', ARGV[1] })
return 'paused'
