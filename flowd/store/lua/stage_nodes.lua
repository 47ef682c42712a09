#!lua
-- Stores some nodes of a workflow that has too many for one call; submit_workflow then makes it exist.
--
-- KEYS  1 status (string)  2 continuations (zset)
-- ARGV  1 execution id  2 state  3… ids of nodes
-- RETURNS 'staged', 'exists' when a submission of the same id was quicker, or 'closed' when what was
--         staged has been removed, or is just being removed, or the execution was deleted since: without
--         the definition nobody would know what to remove
local execution_id, prefix = ARGV[1], 'workflow:' .. ARGV[1] .. ':node:'
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('ZREM', KEYS[2], 'submit ' .. execution_id)
  return 'exists'
end
if not redis.call('ZSCORE', KEYS[2], 'submit ' .. execution_id)
    or redis.call('ZSCORE', KEYS[2], 'discard ' .. execution_id)
    or redis.call('ZSCORE', KEYS[2], 'delete ' .. execution_id)
    or redis.call('EXISTS', 'workflow:' .. execution_id) == 0 then
  return 'closed'
end
for at = 3, #ARGV do
  redis.call('SET', prefix .. ARGV[at], ARGV[2])
end
return 'staged'
