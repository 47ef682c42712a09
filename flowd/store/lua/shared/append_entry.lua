--- @use place_of
-- Puts the first attempt of a node, given by its full name, in front of the workers of its queue. The id
-- of the node.
local function append_entry(stream, execution_id, called, plan)
  local own, node_id = place_of(stream, called)
  redis.call('XADD', own, '*', 'execution_id', execution_id, 'node_id', node_id,
    'attempt', '1', 'plan', plan)
  return node_id
end
