--- @use append_entry
--- @use park_node
--- @use reopen_nodes
-- Gives what is free of the window of a map to the items that wait for a place. 'open'; 'over' when none
-- is to start any more or runs, and the node is to be woken; 'corrupt' where a key of the map holds something
-- flowd did not write.
local function open_items(stream, execution_id, node_id, status)
  local prefix = 'workflow:' .. execution_id
  local map = prefix .. ':map:' .. node_id
  local known = redis.pcall('HMGET', map, 'n', 'window', 'ended', 'stopped')
  local taken = redis.pcall('SCARD', map .. ':open')
  if known.err or type(taken) ~= 'number' or not tonumber(known[2]) then
    return 'corrupt'
  elseif known[4] or known[3] == known[1] then
    return taken == 0 and 'over' or 'open'
  end
  local room = known[2] - taken
  local next = room > 0 and redis.pcall('LPOP', map .. ':todo', room)
  if not next then
    return 'open'
  elseif next.err then
    return 'corrupt'
  end
  local plan, own_queue, queue =
    unpack(redis.call('HMGET', prefix .. ':run', 'plan', 'queue:' .. node_id, 'queue'))
  queue = own_queue or queue or 'default'
  local writes, indexes = {}, {}
  for at, one in ipairs(next) do
    local index, again = string.match(one, '^(%d+)(.*)$')
    local item = node_id .. '.' .. index
    indexes[at] = index
    if status ~= 'PAUSED' and again ~= '' then
      reopen_nodes(stream, execution_id, { item }, 0, 0)
    else
      writes[#writes + 1] = prefix .. ':node:' .. item
      if status == 'PAUSED' then
        park_node(execution_id, item, 0)
        writes[#writes + 1] = 'PENDING'
      else
        append_entry(queue == 'default' and stream or stream .. ':' .. queue, execution_id, item, plan or '')
        writes[#writes + 1] = 'QUEUED'
      end
    end
  end
  redis.call('SADD', map .. ':open', unpack(indexes))
  if writes[1] then
    redis.call('MSET', unpack(writes))
  end
  return 'open'
end
