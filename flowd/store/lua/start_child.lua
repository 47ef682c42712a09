#!lua
--- @use announce
--- @use begin_execution
--- @use is_below_holder lazily
--- @use is_live
--- @use is_outstanding
--- @use refuse_making
-- Makes the execution that a node waits for, and starts it in the state its parent is in: once for each
-- wait of the node, and only while that node is to run. What counts the tree stands at its root.
--
-- KEYS  1 active (set)  2 stream  3 continuations (zset)  4 executions (zset)  5 saved definition (hash)
-- ARGV  1 '1' when nodes were staged before  2 parent (execution id)  3 node id there  4 number of its
--       wait: one more than its attempts that failed  5 the deepest an execution may be, the root is 1
--       6 the most executions of a tree  7 execution id  8 input (JSON), or empty  9 version of the saved
--       definition  10 its digest  11 '1' when the caller has looked at what its parent reruns
--       12 what it asks a place of, by its `concurrency`, or empty  13… see begin_execution
-- RETURNS 'triggered', 'continue', 'waiting', 'replaced …' or 'refused', see begin_execution; 'exists' when
--         this child does; 'taken' when another
--         execution has its id; 'ended' when the parent or the node is not to run; 'deep'; 'large';
--         'own' when one above it has a place of the same key, and would wait for it as it for that;
--         'changed' when this is not what is saved; 'rerun' when its parent reruns what failed of another;
--         'closed' when it took so long that what was staged has been removed; 'corrupt' when a key of the
--         parent or the root holds something flowd did not write
local parent_id, node_id, number, execution_id = ARGV[2], ARGV[3], ARGV[4], ARGV[7]
local parent, place = 'workflow:' .. parent_id, ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4] .. ' '
local refusal = refuse_making(KEYS[3], execution_id, ARGV[1] == '1')
if refusal == 'exists' then
  local said = redis.pcall('HGET', 'workflow:' .. execution_id .. ':run', 'parent')
  local is_same = type(said) == 'string' and string.sub(said, 1, #place) == place
  return is_same and 'exists' or 'taken'
elseif refusal then
  return refusal
end
local status, state = unpack(redis.call('MGET', parent .. ':status', parent .. ':node:' .. node_id))
local failures, above, traceparent, reruns = unpack(redis.pcall('HMGET', parent .. ':run',
  'failures:' .. node_id, 'parent', 'traceparent', 'rerun_failed'))
if not is_live(status) or not is_outstanding(state)
    or (tonumber(failures or 0) or 0) + 1 ~= tonumber(number) then
  return 'ended'
end
local root_id, depth = parent_id, 1
if above then
  root_id, depth = string.match(above, '(%x+) (%d+)$')
end
if not root_id then
  return 'corrupt'
elseif tonumber(depth) >= tonumber(ARGV[5]) then
  return 'deep'
end
local root = 'workflow:' .. root_id .. ':run'
-- The root itself is not counted until it has a child.
local size = redis.pcall('HGET', root, 'tree') or 1
size = type(size) ~= 'table' and tonumber(size)
if not size or type(redis.pcall('HLEN', parent .. ':children')) ~= 'number' then
  return 'corrupt'
elseif size >= tonumber(ARGV[6]) then
  return 'large'
end
if redis.pcall('HGET', KEYS[5], 'digest:' .. ARGV[9]) ~= ARGV[10] then
  return 'changed'
elseif reruns and ARGV[11] ~= '1' then
  return 'rerun'
end
local making = read_making(13)
if making.concurrency ~= '' and is_below_holder(parent_id, ARGV[12]) then
  return 'own'
end
making.status = status
making.told = ' \n' .. cjson.encode({ parent = { execution_id = parent_id, node_id = node_id } })
local names = { active = KEYS[1], stream = KEYS[2], continuations = KEYS[3], executions = KEYS[4] }
local own = { 'parent', place .. root_id .. ' ' .. string.format('%.0f', depth + 1) }
if traceparent then
  own[3], own[4] = 'traceparent', traceparent
end
local outcome = begin_execution(making, names, execution_id, ARGV[8], own, ARGV[12])
if type(outcome) == 'table' or outcome == 'refused' or outcome == 'corrupt' then
  return outcome
end
redis.call('HSET', root, 'tree', size + 1)
redis.call('HINCRBY', parent .. ':run', 'children', 1)
redis.call('HSET', parent .. ':children', execution_id, node_id .. ' ' .. number)
redis.pcall('ZREM', KEYS[3], 'submit ' .. execution_id)
if status == 'PAUSED' and (outcome == 'triggered' or outcome == 'continue') then
  announce({ 'execution.paused', execution_id })
end
return outcome
