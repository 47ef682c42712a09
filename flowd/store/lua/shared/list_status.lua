-- Keeps the lists of executions by state right: out of that of the state it was in, into that of the one
-- it is in. What runs is in none: the active are those, and what is paused.
local LISTED = { PENDING = true, PAUSED = true, COMPLETED = true, FAILED = true, CANCELLED = true }
local function list_status(execution_id, before, state)
  if LISTED[before] then
    redis.pcall('ZREM', 'flowd:status:' .. before, execution_id)
  end
  if LISTED[state] then
    redis.pcall('ZADD', 'flowd:status:' .. state, 0, execution_id)
  end
end
