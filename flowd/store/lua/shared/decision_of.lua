-- What was decided of the wait of this number of a node, `number kind at_ms payload`; nil where nothing
-- was yet.
local function decision_of(execution_id, node_id, number)
  local decision = redis.pcall('HGET', 'workflow:' .. execution_id .. ':decisions', node_id)
  local decided = type(decision) == 'string' and tonumber(string.match(decision, '^%d+'))
  return decided and decided >= tonumber(number) and decision or nil
end
