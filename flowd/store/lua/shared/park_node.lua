-- Keeps a node that could run until its paused execution is resumed.
local function park_node(execution_id, node_id, deaths)
  redis.call('HSET', 'workflow:' .. execution_id .. ':parked', node_id, deaths)
end
