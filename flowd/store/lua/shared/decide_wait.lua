--- @use decision_of
--- @use server_ms
-- Decides the wait of this number of a node, once, whether it waits already or will. The decision that
-- stands, and true when it is this one; nil where the key holds something flowd did not write.
local function decide_wait(execution_id, node_id, number, kind, payload)
  local before = decision_of(execution_id, node_id, number)
  if before then
    return before, false
  end
  local decision = string.format('%s %s %.0f %s', number, kind, server_ms(), payload)
  local added = redis.pcall('HSET', 'workflow:' .. execution_id .. ':decisions', node_id, decision)
  if type(added) == 'number' then
    redis.pcall('HINCRBY', 'flowd:metrics', 'decided ' .. kind, 1)
    return decision, true
  end
end
