#!lua
--- @use announce
--- @use wake_node
-- Says that what a node waits for has come: the first who says so decides, also before it waits.
--
-- KEYS  1 stream
-- ARGV  1 execution id  2 node id  3 kind of what has come  4 what goes with it, or empty
-- RETURNS 'woken', 'kept', 'decided', 'ended', 'unknown' or 'corrupt', see shared/wake_nodes.lua; and
--         the decision that stands, or an empty text
local happened = {}
local outcome, decision = wake_node(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], happened)
announce(happened)
return { outcome, decision or '' }
