#!lua flags=allow-oom
--- @use announce
--- @use leave_follow
--- @use list_status
--- @use reopen_nodes
-- Lets a paused execution go on: the nodes that were kept come in front of the workers, a slice at
-- a time. The cursor goes from call to call: where a slice began is empty once it is done, and a look
-- there again and again would find nothing and never come to an end.
--
-- KEYS  1 status (string)  2 parked (hash)  3 stream  4 continuations (zset)  5 run (hash)
--       6 status of its parent (string), where it is to follow that
-- ARGV  1 execution id  2 now, ms  3 about how many to a slice  4 '1' for a slice that is not the first
--       5 cursor: that of the slice before, or '0'
-- RETURNS 'resumed', 'continue' (call again for the rest), 'moved' (its parent does not run), 'unknown',
--         or the state that cannot be resumed, and the cursor of the next slice; the error WRONGTYPE when
--         parked holds something flowd did not write
local execution_id, continuation = ARGV[1], 'resume ' .. ARGV[1]
local status = redis.pcall('GET', KEYS[1])
local found = redis.pcall('HSCAN', KEYS[2], ARGV[5], 'COUNT', ARGV[3])
if found.err then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is no hash')
end
if status == 'PAUSED' and ARGV[4] ~= '1' then
  if KEYS[6] and redis.pcall('GET', KEYS[6]) ~= 'RUNNING' then
    return { 'moved', '0' }
  end
  redis.call('SET', KEYS[1], 'RUNNING')
  list_status(execution_id, status, 'RUNNING')
  leave_follow(execution_id, redis.pcall('HGET', KEYS[5], 'children'), 'hold', ARGV[2])
  announce({ 'execution.resumed', execution_id })
elseif status ~= 'RUNNING' then
  redis.pcall('ZREM', KEYS[4], continuation)
  return { status or 'unknown', '0' }
end
local cursor, parked = found[1], found[2]
for at = 1, #parked, 2 do
  reopen_nodes(KEYS[3], execution_id, { parked[at] }, parked[at + 1], 0)
  redis.call('HDEL', KEYS[2], parked[at])
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.pcall('ZADD', KEYS[4], ARGV[2], continuation)
  return { 'continue', cursor }
end
redis.pcall('ZREM', KEYS[4], continuation)
return { 'resumed', '0' }
