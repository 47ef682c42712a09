--- @use append_entry
--- @use park_node
--- @use place_of
-- Puts a node, given by its full name, whose dependencies are all COMPLETED in front of the workers.
local function open_node(stream, execution_id, called, plan, status)
  if status == 'PAUSED' then
    return park_node(execution_id, select(2, place_of(stream, called)), 0)
  end
  local node_id = append_entry(stream, execution_id, called, plan)
  redis.call('SET', 'workflow:' .. execution_id .. ':node:' .. node_id, 'QUEUED')
end
