--- @use release_place
--- @use wake_node
-- Has no further item of a map start: what is queued or runs is CANCELLED, and keeps its place until its
-- entry goes; with the last of them the node is woken. Items in a pause are left to whoever ends the node.
local function stop_items(stream, execution_id, node_id, reason, happened)
  local prefix = 'workflow:' .. execution_id
  local map = prefix .. ':map:' .. node_id
  redis.call('HSET', map, 'stopped', reason)
  local indexes = redis.pcall('SMEMBERS', map .. ':open')
  local keys, left, parked, writes = {}, {}, {}, {}
  for at, index in ipairs(indexes) do
    keys[at] = prefix .. ':node:' .. node_id .. '.' .. index
  end
  for at, state in ipairs(keys[1] and redis.call('MGET', unpack(keys)) or {}) do
    local has_entry = state == 'QUEUED' or state == 'RUNNING'
    if has_entry or state == 'PENDING' then
      writes[#writes + 1] = keys[at]
      writes[#writes + 1] = 'CANCELLED'
    end
    if not has_entry then
      left[#left + 1] = indexes[at]
      parked[#parked + 1] = node_id .. '.' .. indexes[at]
    end
  end
  if writes[1] then
    redis.call('MSET', unpack(writes))
  end
  if left[1] then
    redis.pcall('HDEL', prefix .. ':parked', unpack(parked))
    redis.pcall('SREM', map .. ':open', unpack(left))
  end
  redis.call('DEL', map .. ':todo')
  -- Behind all else: one of them that waits for what another holds would be given it.
  if redis.call('EXISTS', prefix .. ':places') == 1 then
    for _, index in ipairs(indexes) do
      release_place(stream, execution_id, node_id .. '.' .. index)
    end
  end
  if #left == #indexes then
    wake_node(stream, execution_id, node_id, 'items', reason, happened)
  end
end
