--- @use begin_finally
--- @use end_execution
--- @use failure_text
-- Ends an execution none of whose nodes is left to run, or begins its `finally`; the event that says so,
-- and its text.
local function finish_execution(stream, active, execution_id, status, now_ms)
  local run = 'workflow:' .. execution_id .. ':run'
  local has_failed, finally, plan, ends_as =
    unpack(redis.pcall('HMGET', run, 'failed', 'finally', 'plan', 'ends_as'))
  local state = has_failed == '1' and 'FAILED' or 'COMPLETED'
  local begun = finally and begin_finally(stream, execution_id, finally, plan, state, status)
  if begun then
    return begun, execution_id
  elseif ends_as == 'CANCELLED' then
    return end_execution(stream, active, execution_id, ends_as, now_ms), execution_id
  elseif state == 'COMPLETED' then
    return end_execution(stream, active, execution_id, state, now_ms), execution_id
  end
  local text = execution_id .. ' ' .. failure_text(run, redis.pcall('HGET', run, 'failure'))
  return end_execution(stream, active, execution_id, state, now_ms), text
end
