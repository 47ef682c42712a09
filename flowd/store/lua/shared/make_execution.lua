--- @use list_status
--- @use write_all
-- Makes a new execution exist in this state, its nodes PENDING. Of `values` those from `first` on are what
-- its run hash says, `count` of them, field and value by turns, the name first, and the others the ids of
-- its nodes, but for those that were staged; `labels` are lines of `name=value`, or empty. The status goes
-- last: an execution exists when its status does.
local function make_execution(execution_id, definition, labels, values, first, count, state)
  local prefix, nodes = 'workflow:' .. execution_id, first + count
  for at = first, nodes - 1, 2000 do
    redis.call('HSET', prefix .. ':run', unpack(values, at, math.min(at + 1999, nodes - 1)))
  end
  if labels ~= '' then
    for label in string.gmatch(labels, '[^\n]+') do
      redis.pcall('ZADD', 'flowd:label:' .. label, 0, execution_id)
    end
  end
  redis.pcall('ZADD', 'flowd:names', 0, values[first + 1] .. '\0' .. execution_id)
  list_status(execution_id, nil, state)
  local writes, node = { prefix, definition }, prefix .. ':node:'
  for at = nodes, #values do
    writes[#writes + 1] = node .. values[at]
    writes[#writes + 1] = 'PENDING'
  end
  writes[#writes + 1] = prefix .. ':status'
  writes[#writes + 1] = state
  write_all(writes)
end
