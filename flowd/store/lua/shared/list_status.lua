-- Keeps the lists of executions by state right: out of that of the state it was in, into that of the one
-- it is in. What runs is in none: the active are those, and what is paused.
local function list_status(execution_id, before, state)
  local was_listed = before == 'PENDING' or before == 'PAUSED' or before == 'COMPLETED'
    or before == 'FAILED' or before == 'CANCELLED'
  if was_listed then
    redis.pcall('ZREM', 'flowd:status:' .. before, execution_id)
  end
  if state and state ~= 'RUNNING' then
    redis.pcall('ZADD', 'flowd:status:' .. state, 0, execution_id)
  end
end
