#!lua flags=allow-oom
--- @use announce
--- @use end_execution
--- @use is_live
--- @use leave_follow
--- @use note_halt
-- Ends an execution before its time. Its nodes follow by cancel_nodes. One with a `finally` becomes
-- CANCELLING, in which nothing opens or starts, until the last of its other nodes is cancelled; where
-- those have ended already, what runs goes on and it ends as CANCELLED.
--
-- KEYS  1 status (string)  2 active (set)  3 continuations (zset)  4 parked (hash)  5 stream
--       6 halted (string)  7 run (hash)
-- ARGV  1 execution id  2 now, ms  3 '1' to leave out `finally`, or what is left of it
-- RETURNS 'cancelled' (also when it was before), 'cancelling' while there is a `finally` to run,
--         'unknown', or the state that cannot be cancelled
local execution_id, now_ms = ARGV[1], ARGV[2]
local status = redis.pcall('GET', KEYS[1])
if status == 'CANCELLED' then
  return 'cancelled'
elseif status ~= 'PENDING' and status ~= 'CANCELLING' and not is_live(status) then
  return status or 'unknown'
end
local finally, ends_as, children =
  unpack(redis.pcall('HMGET', KEYS[7], 'finally', 'ends_as', 'children'))
local event
if status == 'PENDING' or ARGV[3] == '1' or not (finally or ends_as) then
  event = end_execution(KEYS[5], KEYS[2], execution_id, 'CANCELLED', now_ms)
  redis.pcall('ZADD', KEYS[3], now_ms, 'cancel ' .. execution_id)
  redis.call('DEL', KEYS[4])
  note_halt(KEYS[5], KEYS[6])
elseif status == 'CANCELLING' then
  return 'cancelling'
elseif finally then
  event = 'execution.cancelling'
  redis.call('SET', KEYS[1], 'CANCELLING')
  redis.pcall('ZADD', KEYS[3], now_ms, 'cancel ' .. execution_id)
  redis.call('DEL', KEYS[4])
  note_halt(KEYS[5], KEYS[6])
else
  event = 'execution.cancelling'
  redis.call('HSET', KEYS[7], 'ends_as', 'CANCELLED')
  if status == 'PAUSED' then
    redis.call('SET', KEYS[1], 'RUNNING')
    redis.pcall('ZADD', KEYS[3], now_ms, 'resume ' .. execution_id)
  elseif ends_as == 'CANCELLED' then
    return 'cancelling'
  end
end
-- Those of its `finally` may be paused.
leave_follow(execution_id, children, ARGV[3] == '1' and 'force' or 'hold', now_ms)
announce({ event, execution_id })
return event == 'execution.cancelling' and 'cancelling' or 'cancelled'
