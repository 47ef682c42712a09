#!lua
--- @use announce
-- Stores a workflow with all its nodes PENDING. The status key is written here and only here, and
-- an execution exists when its status does, so a reply that was lost can simply be asked for again.
--
-- KEYS  1 definition (string)  2 status (string)  3 run (hash)  4 continuations (zset)
--       5 executions (zset)  6 what the Idempotency-Key stands for (string), where there is one
-- ARGV  1 execution id  2 definition (JSON)  3 '1' when nodes were staged before  4 number of
--       values of the run  5… the run, field and value, then the ids of the nodes not yet staged
-- RETURNS 'submitted', 'exists' when this id is taken, 'closed' when it took so long that what was
--         staged has been removed, or the key no longer stands for this id, or 'deleted' when this id
--         was, and the work is not to be done again
local execution_id, prefix = ARGV[1], 'workflow:' .. ARGV[1] .. ':node:'
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('ZREM', KEYS[4], 'submit ' .. execution_id)
  return 'exists'
end
if ARGV[3] == '1' and not redis.call('ZSCORE', KEYS[4], 'submit ' .. execution_id) then
  return 'closed'
end
if KEYS[6] then
  local claim = redis.call('GET', KEYS[6]) or ''
  if string.sub(claim, -#execution_id) ~= execution_id then
    return 'closed'
  elseif string.find(claim, '^deleted ') then
    return 'deleted'
  end
end
-- First, as it may be damaged: then nothing has been written.
redis.call('ZADD', KEYS[5], 0, execution_id)
redis.call('SET', KEYS[1], ARGV[2])
for at = 5 + ARGV[4], #ARGV do
  redis.call('SET', prefix .. ARGV[at], 'PENDING')
end
for at = 5, 4 + ARGV[4], 2000 do
  redis.call('HSET', KEYS[3], unpack(ARGV, at, math.min(at + 1999, 4 + ARGV[4])))
end
redis.call('SET', KEYS[2], 'PENDING')
redis.pcall('ZREM', KEYS[4], 'submit ' .. execution_id)
announce({ 'execution.submitted', execution_id })
return 'submitted'
