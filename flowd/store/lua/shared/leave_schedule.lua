--- @use ring_dates
--- @use server_ms
-- Gives back the place that an execution has had of its schedule, when it has ended; who waits for that
-- is looked at now.
local function leave_schedule(name, execution_id)
  local schedule = 'flowd:schedule:' .. name
  redis.pcall('SREM', schedule .. ':holders', execution_id)
  if redis.pcall('HGET', schedule, 'waits') == '1' then
    redis.pcall('ZADD', 'flowd:schedules:due', server_ms(), name)
    ring_dates(name)
  end
end
