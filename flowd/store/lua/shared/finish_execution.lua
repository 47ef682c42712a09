--- @use end_execution
-- Ends an execution none of whose nodes is left to run.
local function finish_execution(active, execution_id, now_ms)
  local failed = redis.pcall('HGET', 'workflow:' .. execution_id .. ':run', 'failed')
  return end_execution(active, execution_id, failed == '1' and 'FAILED' or 'COMPLETED', now_ms)
end
