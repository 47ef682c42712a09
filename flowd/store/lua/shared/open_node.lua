--- @use append_entry
--- @use park_node
--- @use place_of
-- Puts a node, given by its full name, whose dependencies are all COMPLETED in front of the workers.
local function open_node(stream, execution_id, called, plan, status)
  local own, node_id = place_of(stream, called)
  if status == 'PAUSED' then
    return park_node(execution_id, node_id, 0)
  end
  append_entry(own, execution_id, node_id, plan)
  redis.call('SET', 'workflow:' .. execution_id .. ':node:' .. node_id, 'QUEUED')
end
