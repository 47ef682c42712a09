-- Puts a node whose dependencies are all COMPLETED in front of the workers.
local function open_node(stream, execution_id, node_id, plan)
  redis.call('XADD', stream, '*', 'execution_id', execution_id, 'node_id', node_id,
    'attempt', '1', 'plan', plan)
  redis.call('SET', 'workflow:' .. execution_id .. ':node:' .. node_id, 'QUEUED')
end
