--- @use leave_schedule lazily
--- @use steady_ms
-- Ends an execution in this state, notes when, for its retention, and that somebody waits to be told;
-- the event that says so. A set that is damaged stops nobody: the scheduler sets it aside.
local function end_execution(active, execution_id, state, now_ms)
  local prefix = 'workflow:' .. execution_id
  redis.call('SET', prefix .. ':status', state)
  redis.pcall('SREM', active, execution_id)
  redis.pcall('ZADD', 'flowd:finished', now_ms, execution_id)
  redis.pcall('HINCRBY', 'flowd:metrics', 'executions ' .. state, 1)
  redis.pcall('HSET', prefix .. ':run', 'finished_ms', now_ms)
  local callback, schedule = unpack(redis.pcall('HMGET', prefix .. ':run', 'callback', 'schedule'))
  if callback == '1' then
    redis.pcall('ZADD', 'flowd:callbacks', steady_ms(), execution_id)
  end
  if schedule then
    leave_schedule(schedule, execution_id)
  end
  return 'execution.' .. string.lower(state)
end
