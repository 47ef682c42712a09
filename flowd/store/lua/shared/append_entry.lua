-- Puts the first attempt of a node in front of the workers who read this stream.
local function append_entry(stream, execution_id, node_id, plan)
  redis.call('XADD', stream, '*', 'execution_id', execution_id, 'node_id', node_id,
    'attempt', '1', 'plan', plan)
end
