-- Puts the first attempt of a node in front of the workers who read this stream. `arrived` is what they need
-- not look up then: what has arrived at the node, where that is more than dependencies that have completed.
local function append_entry(stream, execution_id, node_id, plan, arrived)
  if arrived then
    redis.call('XADD', stream, '*', 'execution_id', execution_id, 'node_id', node_id,
      'attempt', '1', 'plan', plan, 'arrived', string.format('%.0f', arrived))
  else
    redis.call('XADD', stream, '*', 'execution_id', execution_id, 'node_id', node_id,
      'attempt', '1', 'plan', plan)
  end
end
