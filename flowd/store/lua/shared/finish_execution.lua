--- @use end_execution
--- @use failure_text
-- Ends an execution none of whose nodes is left to run; the event that says so, and its text.
local function finish_execution(active, execution_id, now_ms)
  local run = 'workflow:' .. execution_id .. ':run'
  if redis.pcall('HGET', run, 'failed') ~= '1' then
    return end_execution(active, execution_id, 'COMPLETED', now_ms), execution_id
  end
  local text = execution_id .. ' ' .. failure_text(run, redis.pcall('HGET', run, 'failure'))
  return end_execution(active, execution_id, 'FAILED', now_ms), text
end
