--- @use wake_node
-- Has no further item of a map start: what is queued or runs is CANCELLED, and the node is woken. Items in
-- a pause are left to whoever ends the node.
local function stop_items(stream, execution_id, node_id, reason, happened)
  local prefix = 'workflow:' .. execution_id
  local map = prefix .. ':map:' .. node_id
  redis.call('HSET', map, 'stopped', reason)
  local keys, parked, writes = {}, {}, {}
  for at, index in ipairs(redis.pcall('SMEMBERS', map .. ':open')) do
    parked[at] = node_id .. '.' .. index
    keys[at] = prefix .. ':node:' .. parked[at]
  end
  if keys[1] then
    for at, state in ipairs(redis.call('MGET', unpack(keys))) do
      if state == 'QUEUED' or state == 'RUNNING' or state == 'PENDING' then
        writes[#writes + 1] = keys[at]
        writes[#writes + 1] = 'CANCELLED'
      end
    end
    redis.pcall('HDEL', prefix .. ':parked', unpack(parked))
  end
  if writes[1] then
    redis.call('MSET', unpack(writes))
  end
  redis.call('DEL', map .. ':todo', map .. ':open')
  wake_node(stream, execution_id, node_id, 'items', reason, happened)
end
