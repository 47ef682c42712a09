#!lua flags=allow-oom
--- @use announce
--- @use end_execution
--- @use is_live
--- @use note_halt
-- Ends an execution before its time. Its nodes follow by cancel_nodes.
--
-- KEYS  1 status (string)  2 active (set)  3 continuations (zset)  4 parked (hash)  5 stream
--       6 halted (string)
-- ARGV  1 execution id  2 now, ms
-- RETURNS 'cancelled' (also when it was before), 'unknown', or the state that cannot be cancelled
local status = redis.pcall('GET', KEYS[1])
if status == 'CANCELLED' then
  return 'cancelled'
elseif status ~= 'PENDING' and not is_live(status) then
  return status or 'unknown'
end
local event = end_execution(KEYS[2], ARGV[1], 'CANCELLED', ARGV[2])
redis.pcall('ZADD', KEYS[3], ARGV[2], 'cancel ' .. ARGV[1])
redis.call('DEL', KEYS[4])
note_halt(KEYS[5], KEYS[6])
announce({ event, ARGV[1] })
return 'cancelled'
