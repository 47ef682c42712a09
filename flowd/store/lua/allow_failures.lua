#!lua flags=allow-oom
--- @then end_nodes
--- @use failure_text
--- @use keep_dead_letter
--- @use keep_report
--- @use spend_reserved
-- Ends a batch of nodes that have failed and may: to their dependents they are COMPLETED, with the
-- error as output.
--
-- KEYS  1 stream  2 active (set)  3 continuations (zset)  4 dead letters (stream)
-- ARGV  as complete_nodes, with three more before the dependents of each node: its report (JSON), or
--       empty, its error, cut for an event, and the reason to keep it as a dead letter, or empty
-- RETURNS for each node 'completed', 'finished', 'failed', 'stale', 'ended' or 'corrupt', as
--         complete_nodes
local function write_end(writes, node, nth, at)
  local execution_id, node_id, record = ARGV[at], ARGV[at + 1], ARGV[at + 3]
  local run = 'workflow:' .. execution_id .. ':run'
  writes[#writes + 1] = node
  writes[#writes + 1] = 'FAILED'
  writes[#writes + 1] = node .. ':output'
  writes[#writes + 1] = ARGV[at + 4]
  -- Said of this execution only: a rerun that leaves the node out makes it FAILED, too.
  redis.pcall('HSET', run, 'allowed:' .. node_id, '1')
  keep_report(run, node_id, ARGV[at + 8])
  keep_dead_letter(KEYS[4], ARGV[at + 10], ARGV[3 + nth], execution_id, node_id, record)
  -- Others may wait for it, and would wait for ever.
  spend_reserved(run, node_id)
  return failure_text(run, ARGV[at + 9])
end

local event, arrival, width = 'node.failed', 1, 11
