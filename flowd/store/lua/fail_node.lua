#!lua flags=allow-oom
--- @use announce
--- @use arrive_failed
--- @use end_entry
--- @use fail_pending
--- @use finish_execution
--- @use is_live
--- @use is_outstanding
--- @use keep_dead_letter
--- @use keep_report
--- @use let_go
--- @use spend_reserved
-- Fails a node and everything that waits for it.
--
-- KEYS  1 stream  2 active (set)  3 continuations (zset)  4 dead letters (stream)
-- ARGV  1 group  2 now, ms  3 name of its entry  4 execution id  5 node id  6 attempt record
--       7 output (JSON) of the node  8 output (JSON) of the nodes downstream
--       9 reason to keep it as a dead letter, or empty  10 report (JSON) of the node, or empty
--       11 its error, cut for an event  12 number of nodes downstream left to fail_downstream
--       13 plan digest  14 dependents of the node that look at what arrives, as arrive_failed takes
--       them  15… the nodes failed here, as fail_pending takes them
-- RETURNS 'failed', 'finished', 'cancelled', 'stale', 'ended' or 'corrupt', as complete_nodes
local stream, active, continuations = KEYS[1], KEYS[2], KEYS[3]
local now_ms, execution_id, node_id = ARGV[2], ARGV[4], ARGV[5]
local prefix = 'workflow:' .. execution_id
local node, run = prefix .. ':node:' .. node_id, prefix .. ':run'
if not end_entry(stream, ARGV[1], ARGV[3]) then
  return 'stale'
end
local status, state = unpack(redis.call('MGET', prefix .. ':status', node))
if not is_live(status) or not is_outstanding(state) then
  let_go(stream, execution_id, node_id, status)
  return 'ended'
end
local happened = { 'node.failed',
  execution_id .. ' ' .. node_id .. ' ' .. ARGV[6] .. failure_text(run, ARGV[11]) }
redis.call('MSET', node, 'FAILED', node .. ':output', ARGV[7])
redis.pcall('HSET', prefix .. ':attempts', node_id, ARGV[6])
redis.pcall('HSET', run, 'failed', '1')
keep_report(run, node_id, ARGV[10])
redis.pcall('HSETNX', run, 'failure', node_id .. ': ' .. ARGV[11])
-- Others may wait for it, and would wait for ever.
spend_reserved(run, node_id)
if ARGV[14] == ' *' then
  redis.pcall('ZADD', continuations, now_ms, 'look ' .. execution_id .. ' ' .. node_id)
elseif ARGV[14] ~= '' then
  arrive_failed(stream, execution_id, ARGV[14], ARGV[13], status)
end
local failed =
  1 + fail_pending(stream, continuations, execution_id, 15, ARGV[8], ARGV[13], status, now_ms)
keep_dead_letter(KEYS[4], ARGV[9], ARGV[3], execution_id, node_id, ARGV[6])
if ARGV[12] ~= '0' then
  redis.pcall('ZADD', continuations, now_ms, 'fail ' .. execution_id .. ' ' .. node_id)
end
local outcome = 'failed'
local remaining = redis.pcall('HINCRBY', run, 'remaining', -failed)
if remaining == 0 then
  local event, text = finish_execution(stream, active, execution_id, status, now_ms)
  happened[3], happened[4] = event, text
  if event ~= 'execution.finally_started' then
    outcome = event == 'execution.cancelled' and 'cancelled' or 'finished'
  end
elseif type(remaining) ~= 'number' or remaining < 0 then
  outcome = 'corrupt'
end
announce(happened)
return outcome
