#!lua flags=allow-oom
--- @use end_items
-- Commits a batch of items of maps that have failed, and opens the next ones.
--
-- KEYS  1 stream  2 active (set)  3 continuations (zset)  4 dead letters (stream)
-- ARGV  as allow_failures; an item has no dependents
-- RETURNS for each item 'completed', 'stale', 'ended' or 'corrupt', as complete_nodes; then up to which ms
--         entries may be of executions that were paused or cancelled
return end_items('FAILED', 'node.failed', 11)
