#!lua flags=allow-oom
--- @use end_nodes
-- Ends a batch of nodes that have failed and may: to their dependents they are COMPLETED, with the
-- error as output.
--
-- KEYS  1 stream  2 active (set)  3 continuations (zset)
-- ARGV  as complete_nodes, with two more before the dependents of each node: its report (JSON), or
--       empty, and its error, cut for an event
-- RETURNS for each node 'completed', 'finished', 'failed', 'stale', 'ended' or 'corrupt', as
--         complete_nodes
return end_nodes('FAILED', 'node.failed', 1, 10)
