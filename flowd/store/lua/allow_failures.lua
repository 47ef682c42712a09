#!lua flags=allow-oom
--- @use end_nodes
-- Ends a batch of nodes that have failed and may: to their dependents they are COMPLETED, with the
-- error as output.
--
-- KEYS  1 stream  2 active (set)  3 continuations (zset)  4 dead letters (stream)
-- ARGV  as complete_nodes, with three more before the dependents of each node: its report (JSON), or
--       empty, its error, cut for an event, and the reason to keep it as a dead letter, or empty
-- RETURNS for each node 'completed', 'finished', 'failed', 'stale', 'ended' or 'corrupt', as
--         complete_nodes
return end_nodes('FAILED', 'node.failed', 1, 11)
