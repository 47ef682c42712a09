#!lua
--- @use announce
--- @use begin_execution lazily
--- @use begin_executions
--- @use is_below_holder lazily
--- @use is_live
--- @use is_outstanding
--- @use read_making
--- @use refuse_making
-- Makes the executions that nodes wait for, all of one workflow, and starts each in the state its parent is
-- in: once for each wait of a node, and only while that node is to run. What counts a tree stands at its
-- root.
--
-- KEYS  1 active (set)  2 stream  3 continuations (zset)  4 executions (zset)  5 saved definition (hash)
-- ARGV  1 '1' when nodes were staged before; then, and where they have a `concurrency`, it is one
--       execution  2 the deepest an execution may be, the root is 1  3 the most executions of a tree
--       4 version of the saved definition  5 its digest  6 '1' when the caller has looked at what its
--       parent reruns  7 how many, then for each: its parent (execution id), node id there, number of its
--       wait: one more than its attempts that failed, execution id, input (JSON), or empty, and what it
--       asks a place of, or empty; then what they have in common, see read_making
-- RETURNS for each 'triggered', 'continue', 'waiting', 'replaced …' or 'refused', see begin_execution;
--         'exists' when this child does; 'taken' when another execution has its id; 'ended' when the parent
--         or the node is not to run; 'deep'; 'large'; 'own' when one above it has a place of the same key,
--         and would wait for it as it for that; 'changed' when this is not what is saved; 'rerun' when its
--         parent reruns what failed of another; 'closed' when it took so long that what was staged has been
--         removed; 'corrupt' when a key of the parent or the root holds something flowd did not write
local WIDTH, FIRST = 6, 8
local count = tonumber(ARGV[7])
local making = read_making(FIRST + WIDTH * count)
local names = { active = KEYS[1], stream = KEYS[2], continuations = KEYS[3], executions = KEYS[4] }
local is_saved = redis.pcall('HGET', KEYS[5], 'digest:' .. ARGV[4]) == ARGV[5]

local keys, asked = {}, {}
for nth = 1, count do
  local at = FIRST + WIDTH * (nth - 1)
  local parent_id = ARGV[at]
  local parent = 'workflow:' .. parent_id
  keys[3 * nth - 2] = parent .. ':status'
  keys[3 * nth - 1] = parent .. ':node:' .. ARGV[at + 1]
  keys[3 * nth] = 'workflow:' .. ARGV[at + 3] .. ':status'
  asked[parent_id] = asked[parent_id] or { 'parent', 'traceparent', 'rerun_failed' }
  table.insert(asked[parent_id], 'failures:' .. ARGV[at + 1])
end
local states = redis.call('MGET', unpack(keys))

-- What each parent says of itself, and of how often its nodes have failed.
local parents, sizes, is_made = {}, {}, {}
for parent_id, fields in pairs(asked) do
  local said = redis.pcall('HMGET', 'workflow:' .. parent_id .. ':run', unpack(fields))
  local parent = { failures = {}, traceparent = said[2], reruns = said[3], listed = {} }
  for at = 4, #fields do
    parent.failures[fields[at]] = tonumber(said[at] or 0) or 0
  end
  parent.root_id, parent.depth = parent_id, 1
  if said[1] then
    parent.root_id, parent.depth = string.match(said[1], '(%x+) (%d+)$')
  end
  parents[parent_id] = parent
end

-- The size of the tree of this root, which itself is not counted until it has a child; nil where its key
-- was damaged.
local function size_of(root_id)
  if sizes[root_id] == nil then
    local size = redis.pcall('HGET', 'workflow:' .. root_id .. ':run', 'tree') or 1
    sizes[root_id] = type(size) ~= 'table' and tonumber(size) or false
  end
  return sizes[root_id] or nil
end

-- Writes down whose children those are that were made.
local function list_children()
  for parent_id, parent in pairs(parents) do
    local listed = parent.listed
    if listed[1] then
      local prefix = 'workflow:' .. parent_id
      redis.call('HSET', 'workflow:' .. parent.root_id .. ':run', 'tree', sizes[parent.root_id])
      redis.call('HINCRBY', prefix .. ':run', 'children', #listed / 2)
      redis.call('HSET', prefix .. ':children', unpack(listed))
    end
  end
end

-- Why this child is not made; nil where it is to be.
local function refuse_child(nth, parent_id, node_id, number, execution_id)
  local parent, status, state = parents[parent_id], states[3 * nth - 2], states[3 * nth - 1]
  local place = parent_id .. ' ' .. node_id .. ' ' .. number .. ' '
  if is_made[execution_id] then
    return is_made[execution_id] == place and 'exists' or 'taken'
  end
  if states[3 * nth] or ARGV[1] == '1' then
    local refusal = refuse_making(KEYS[3], execution_id, ARGV[1] == '1')
    if refusal == 'exists' then
      local said = redis.pcall('HGET', 'workflow:' .. execution_id .. ':run', 'parent')
      local is_same = type(said) == 'string' and string.sub(said, 1, #place) == place
      return is_same and 'exists' or 'taken'
    elseif refusal then
      return refusal
    end
  end
  if not is_live(status) or not is_outstanding(state)
      or parent.failures['failures:' .. node_id] + 1 ~= tonumber(number) then
    return 'ended'
  elseif not parent.root_id then
    return 'corrupt'
  elseif tonumber(parent.depth) >= tonumber(ARGV[2]) then
    return 'deep'
  end
  local size = size_of(parent.root_id)
  parent.is_whole = parent.is_whole
    or type(redis.pcall('HLEN', 'workflow:' .. parent_id .. ':children')) == 'number'
  if not size or not parent.is_whole then
    return 'corrupt'
  elseif size >= tonumber(ARGV[3]) then
    return 'large'
  elseif not is_saved then
    return 'changed'
  elseif parent.reruns and ARGV[6] ~= '1' then
    return 'rerun'
  end
end

-- The one that was staged, or asks for a place.
local function begin_alone(making, names, one)
  making.status, making.told = one.status, one.told
  local outcome = begin_execution(making, names, one.id, one.given, one.own, one.place)
  if ARGV[1] == '1' and type(outcome) ~= 'table' and outcome ~= 'refused' and outcome ~= 'corrupt' then
    redis.pcall('ZREM', KEYS[3], 'submit ' .. one.id)
  end
  if one.status == 'PAUSED' and (outcome == 'triggered' or outcome == 'continue') then
    announce({ 'execution.paused', one.id })
  end
  return outcome
end

local outcomes, starting, began = {}, {}, {}
for nth = 1, count do
  local at = FIRST + WIDTH * (nth - 1)
  local parent_id, node_id, number, execution_id, given, place = unpack(ARGV, at, at + WIDTH - 1)
  local parent = parents[parent_id]
  outcomes[nth] = refuse_child(nth, parent_id, node_id, number, execution_id)
  if not outcomes[nth] and making.concurrency ~= '' and is_below_holder(parent_id, place) then
    outcomes[nth] = 'own'
  end
  if not outcomes[nth] then
    is_made[execution_id] = parent_id .. ' ' .. node_id .. ' ' .. number .. ' '
    sizes[parent.root_id] = sizes[parent.root_id] + 1
    parent.listed[#parent.listed + 1] = execution_id
    parent.listed[#parent.listed + 1] = node_id .. ' ' .. number
    local own = { 'parent', string.format('%s %s %s %s %.0f', parent_id, node_id, number, parent.root_id,
      parent.depth + 1) }
    if parent.traceparent then
      own[3], own[4] = 'traceparent', parent.traceparent
    end
    began[#began + 1] = nth
    starting[#starting + 1] = { id = execution_id, given = given, own = own, place = place,
      status = states[3 * nth - 2],
      told = ' \n' .. cjson.encode({ parent = { execution_id = parent_id, node_id = node_id } }) }
  end
end

local begun = {}
if starting[1] and ARGV[1] ~= '1' and making.concurrency == '' then
  begun = begin_executions(making, names, starting)
elseif starting[1] then
  begun = { begin_alone(making, names, starting[1]) }
end
if begun.err or type(begun[1]) == 'table' then
  return begun.err and begun or begun[1]
end
for nth, outcome in ipairs(begun) do
  outcomes[began[nth]] = outcome
end
if begun[1] and begun[1] ~= 'refused' and begun[1] ~= 'corrupt' then
  list_children()
end
return outcomes
