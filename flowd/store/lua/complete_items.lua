#!lua flags=allow-oom
--- @use end_items
-- Commits a batch of items of maps that ended well, and opens the next ones.
--
-- KEYS  1 stream  2 active (set)  3 continuations (zset)
-- ARGV  as complete_nodes; an item has no dependents
-- RETURNS for each item 'completed', 'stale', 'ended' or 'corrupt', as complete_nodes; then up to which ms
--         entries may be of executions that were paused or cancelled
return end_items('COMPLETED', 'node.completed', 8)
