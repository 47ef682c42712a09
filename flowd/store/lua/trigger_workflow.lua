#!lua
--- @use admit_execution
--- @use announce
--- @use ask_place lazily
--- @use await_place lazily
--- @use list_status
--- @use open_roots
--- @use take_place lazily
--- @use write_all
-- Starts a PENDING execution and opens the nodes that depend on nothing. Harmless when repeated.
--
-- KEYS  1 status (string)  2 run (hash)  3 active (set)  4 stream  5 continuations (zset)
--       6 input (string)
-- ARGV  1 execution id  2 group  3 now, ms  4 input (JSON), or empty  5 traceparent, or empty
--       6 '1' where its input fits its schema, or is not asked about  7 what it asks a place of, by its
--       `concurrency`: the digest of the key and the key; or empty
-- RETURNS 'unknown' | 'triggered' | 'continue' (the roots are too many for one call: the caller
--         opens them by advance_node) | the state it was in already: 'RUNNING', 'PAUSED', 'COMPLETED',
--         'FAILED' or 'CANCELLED' | 'corrupt' (status or run holds something flowd did not write) |
--         'unchecked' (it has an input_schema or a `concurrency`, of which nothing was said: nothing was
--         done) | 'waiting' for a place (also when it was before) | 'replaced' and ids, see await_place |
--         'refused' (all places are taken)
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
local plan, roots, schema, concurrency, waiting, queues = unpack(redis.pcall('HMGET', KEYS[2],
  'plan', 'roots', 'input_schema', 'concurrency', 'waiting', 'queues'))
if state ~= 'PENDING' or not plan or not roots then
  return 'corrupt'
end
if waiting then
  return 'waiting'
elseif schema and ARGV[6] ~= '1' or concurrency and ARGV[7] == '' then
  return 'unchecked'
end
local asked = concurrency and ask_place(ARGV[7], concurrency)
if asked and asked ~= 'free' and asked ~= 'full' then
  return asked
end
local damage = asked ~= 'full' and admit_execution(KEYS[3], KEYS[4], ARGV[2], execution_id, queues)
if damage then
  return damage
end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[6], ARGV[4])
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[2], 'traceparent', ARGV[5])
end
if asked == 'full' then
  return await_place(KEYS[4], KEYS[3], ARGV[2], execution_id, ARGV[7], concurrency, now_ms, '')
elseif asked then
  take_place(execution_id, ARGV[7])
end
list_status(execution_id, 'PENDING', 'RUNNING')
redis.call('HSET', KEYS[2], 'triggered_ms', now_ms)
announce({ 'execution.triggered', execution_id })
local writes = { KEYS[1], 'RUNNING' }
local outcome = open_roots(KEYS[4], KEYS[5], execution_id, plan, roots, 'RUNNING', now_ms, writes)
write_all(writes)
return outcome
