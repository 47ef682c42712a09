#!lua flags=allow-oom
--- @use leave_place
--- @use retry_node
-- Takes an item of a map whose attempt has failed out of the stream until its next one is due, and gives its
-- place to the next item meanwhile.
--
-- KEYS  1 stream  2 retries (zset)  3 bell (list)
-- ARGV  as retry_node
-- RETURNS 'retrying', 'stale' or 'ended', as complete_nodes
local outcome, status = retry_node()
if outcome == 'retrying' then
  leave_place(KEYS[1], ARGV[4], ARGV[5], status)
end
return outcome
