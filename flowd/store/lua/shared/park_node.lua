-- Keeps a node that could run until its paused execution is resumed. Where that key is damaged it is
-- lost, and its execution with it: the reconciler fails what has nothing left to run.
local function park_node(execution_id, node_id, deaths)
  redis.pcall('HSET', 'workflow:' .. execution_id .. ':parked', node_id, deaths)
end
