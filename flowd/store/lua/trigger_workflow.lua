#!lua
--- @use announce
--- @use open_node
-- Starts a PENDING execution and opens the nodes that depend on nothing. Harmless when repeated.
--
-- KEYS  1 status (string)  2 run (hash)  3 active (set)  4 stream  5 continuations (zset)
--       6 input (string)
-- ARGV  1 execution id  2 group  3 now, ms  4 input (JSON), or empty  5 traceparent, or empty
-- RETURNS 'unknown' | 'triggered' | 'continue' (the roots are too many for one call: the caller
--         opens them by advance_node) | the state it was in already: 'RUNNING', 'PAUSED', 'COMPLETED',
--         'FAILED' or 'CANCELLED' | 'corrupt' (status or run holds something flowd did not write)
local execution_id, now_ms = ARGV[1], ARGV[3]
local state = redis.pcall('GET', KEYS[1])
if not state then
  return 'unknown'
elseif state == 'CANCELLING' then
  return 'RUNNING'
elseif state == 'RUNNING' or state == 'PAUSED' or state == 'COMPLETED' or state == 'FAILED'
    or state == 'CANCELLED' then
  return state
end
local plan, roots = unpack(redis.pcall('HMGET', KEYS[2], 'plan', 'roots'))
if state ~= 'PENDING' or not plan or not roots then
  return 'corrupt'
end

-- A group made later would have to begin behind what is already in the stream, or hand out again
-- what others are running; so the first one to write makes it.
local stream = redis.call('TYPE', KEYS[4]).ok
if stream ~= 'none' and stream ~= 'stream' then
  return redis.error_reply('WRONGTYPE the task stream is a ' .. stream)
end
redis.call('SADD', KEYS[3], execution_id)
if stream == 'none' then
  redis.call('XGROUP', 'CREATE', KEYS[4], ARGV[2], '0', 'MKSTREAM')
end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[6], ARGV[4])
end
for node_id in string.gmatch(roots, '[^,]+') do
  open_node(KEYS[4], execution_id, node_id, plan, 'RUNNING')
end
redis.call('SET', KEYS[1], 'RUNNING')
redis.call('HSET', KEYS[2], 'triggered_ms', now_ms)
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[2], 'traceparent', ARGV[5])
end
announce({ 'execution.triggered', execution_id })
if roots == '' then
  redis.pcall('ZADD', KEYS[5], now_ms, 'advance ' .. execution_id .. ' ')
  return 'continue'
end
return 'triggered'
