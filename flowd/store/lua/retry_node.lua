#!lua flags=allow-oom
--- @use retry_node
-- Takes a node whose attempt has failed out of the stream until its next one is due.
--
-- KEYS  1 stream  2 retries (zset)  3 bell (list)
-- ARGV  1 group  2 pause, ms  3 name of its entry  4 execution id  5 node id  6 attempt record
--       7 number of its attempts that have failed  8 error  9 report (JSON) of the node, or empty
--       10 its error, cut for an event
-- RETURNS 'retrying', 'stale' or 'ended', as complete_nodes
return (retry_node())
