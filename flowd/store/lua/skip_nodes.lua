#!lua flags=allow-oom
--- @use arrivals
--- @then end_nodes
-- Ends a batch of nodes that do not run: a condition was false, or nothing they follow has run.
--
-- KEYS  1 stream  2 active (set)  3 continuations (zset)
-- ARGV  as complete_nodes, with the reason in place of each output
-- RETURNS for each node 'completed', 'finished', 'failed', 'stale', 'ended' or 'corrupt', as
--         complete_nodes
local function write_end(writes, node, _nth, at)
  writes[#writes + 1] = node
  writes[#writes + 1] = 'SKIPPED'
  redis.pcall('HSET', 'workflow:' .. ARGV[at] .. ':run', 'skipped:' .. ARGV[at + 1], ARGV[at + 4])
end

local event, arrival, width = 'node.skipped', SKIPPED, 8
