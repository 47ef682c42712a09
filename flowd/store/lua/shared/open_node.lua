--- @use append_entry
--- @use park_node
-- Puts a node whose dependencies are all COMPLETED in front of the workers.
local function open_node(stream, execution_id, node_id, plan, status)
  if status == 'PAUSED' then
    return park_node(execution_id, node_id, 0)
  end
  append_entry(stream, execution_id, node_id, plan)
  redis.call('SET', 'workflow:' .. execution_id .. ':node:' .. node_id, 'QUEUED')
end
