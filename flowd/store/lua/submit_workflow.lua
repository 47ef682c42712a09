#!lua
-- Stores a workflow with all its nodes PENDING. The status key is written here and only here, and
-- an execution exists when its status does, so a reply that was lost can simply be asked for again.
--
-- KEYS  1 definition (string)  2 status (string)  3 run (hash)  4 continuations (zset)
-- ARGV  1 execution id  2 definition (JSON)  3 plan digest  4 roots, comma between (empty: too many)
--       5 number of nodes  6 now, ms  7… ids of the nodes not yet staged
-- RETURNS 'submitted', 'exists' when this id is taken, or 'closed' when it took so long that what was
--         staged has been removed
local execution_id, prefix = ARGV[1], 'workflow:' .. ARGV[1] .. ':node:'
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 'exists'
end
local has_staged = tonumber(ARGV[5]) > #ARGV - 6
if has_staged and not redis.call('ZSCORE', KEYS[4], 'submit ' .. execution_id) then
  return 'closed'
end
redis.call('SET', KEYS[1], ARGV[2])
for at = 7, #ARGV do
  redis.call('SET', prefix .. ARGV[at], 'PENDING')
end
redis.call('HSET', KEYS[3], 'plan', ARGV[3], 'roots', ARGV[4], 'remaining', ARGV[5],
  'submitted_ms', ARGV[6])
redis.call('SET', KEYS[2], 'PENDING')
redis.call('ZREM', KEYS[4], 'submit ' .. execution_id)
return 'submitted'
