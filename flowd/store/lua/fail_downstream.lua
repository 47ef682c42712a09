#!lua flags=allow-oom
--- @use announce
--- @use fail_pending
--- @use finish_execution
--- @use is_live
-- Fails one more slice of the nodes downstream of a failed one. Every slice may be sent twice.
--
-- KEYS  1 active (set)  2 continuations (zset)  3 stream
-- ARGV  1 execution id  2 failed node id  3 now, ms  4 '1' with the last slice
--       5 output (JSON) of the nodes  6 plan digest  7… the nodes, as fail_pending takes them
-- RETURNS 'failed', 'finished', 'ended' or 'corrupt', as fail_node
local active, continuations = KEYS[1], KEYS[2]
local execution_id = ARGV[1]
local prefix = 'workflow:' .. execution_id
local outcome = 'failed'
local status = redis.pcall('GET', prefix .. ':status')
if not is_live(status) then
  outcome = 'ended'
else
  local failed =
    fail_pending(KEYS[3], continuations, execution_id, 7, ARGV[5], ARGV[6], status, ARGV[3])
  -- Not `-failed`: Lua writes minus nothing as -0, which Redis 7.0 does not take for a number.
  local remaining = redis.pcall('HINCRBY', prefix .. ':run', 'remaining', 0 - failed)
  if type(remaining) ~= 'number' or remaining < 0 then
    outcome = 'corrupt'
  elseif remaining == 0 then
    local event, text = finish_execution(KEYS[3], active, execution_id, status, ARGV[3])
    announce({ event, text })
    outcome = 'finished'
    if event == 'execution.finally_started' then
      redis.pcall('ZREM', continuations, 'fail ' .. execution_id .. ' ' .. ARGV[2])
      outcome = 'failed'
    end
  end
end
if ARGV[4] == '1' or outcome ~= 'failed' then
  redis.pcall('ZREM', continuations, 'fail ' .. execution_id .. ' ' .. ARGV[2])
end
return outcome
