#!lua flags=allow-oom
--- @then end_nodes
-- Commits a batch of finished nodes and advances their dependents: the hot path of the engine.
-- The worker knows the plan, so nothing is looked up here that it could have said, and whatever
-- the server can do for the whole batch at once is one command.
--
-- KEYS  1 stream  2 active (set)  3 continuations (zset)
-- ARGV  1 group  2 now, ms  3 number of nodes  4… the names of their entries, all of one queue, then for each node:
--       execution id, node id, plan digest, attempt record, output (JSON), number of dependents with
--       one dependency, number of joins, number of dependents left to advance_node, then the full
--       names of the first, then of each join its full name and how many it waits for
-- RETURNS for each node 'completed', 'finished' (and its execution with it), 'failed' (the same, and
--         other nodes of it have failed), 'cancelled' (the same, it was cancelled before), 'stale' (the
--         attempt was taken away, nothing written), 'ended' (the node or its execution runs no more,
--         nothing written) or 'corrupt' (a key of its execution holds something flowd did not write);
--         then up to which ms entries may be of executions that were paused or cancelled
local function write_end(writes, node, _nth, at)
  local size = #writes
  writes[size + 1], writes[size + 2] = node, 'COMPLETED'
  writes[size + 3], writes[size + 4] = node .. ':output', ARGV[at + 4]
end

local event, arrival, width = 'node.completed', 1, 8
