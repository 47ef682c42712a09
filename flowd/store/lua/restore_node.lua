#!lua flags=allow-oom
--- @use requeue_node
-- Gives a new entry to a node that is QUEUED or RUNNING but has none. The caller has seen twice
-- that there is none; that state and attempt are still the same proves that none came since.
--
-- KEYS  1 stream  2 status (string)  3 node (string)  4 attempts (hash)  5 run (hash)
-- ARGV  1 execution id  2 node id  3 state the caller saw  4 attempt record the caller saw, or empty
--       5 number of the next attempt
-- RETURNS 'restored', or 'moved' when the node has moved on
local status, state = unpack(redis.call('MGET', KEYS[2], KEYS[3]))
if status ~= 'RUNNING' or state ~= ARGV[3]
    or (redis.pcall('HGET', KEYS[4], ARGV[2]) or '') ~= ARGV[4] then
  return 'moved'
end
local plan = redis.pcall('HGET', KEYS[5], 'plan')
plan = type(plan) == 'string' and plan or ''
requeue_node(KEYS[1], ARGV[1], ARGV[2], ARGV[5], plan, 0)
return 'restored'
