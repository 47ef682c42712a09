-- What was decided of the wait of this number of a node, `number kind at_ms payload`, of what the key of
-- decisions says of it; nil where nothing was yet.
local function decision_in(text, number)
  local decided = type(text) == 'string' and tonumber(string.match(text, '^%d+'))
  return decided and decided >= tonumber(number) and text or nil
end

-- The same, of a node nobody has asked about yet.
local function decision_of(execution_id, node_id, number)
  return decision_in(redis.pcall('HGET', 'workflow:' .. execution_id .. ':decisions', node_id), number)
end
