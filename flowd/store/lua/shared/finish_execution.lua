--- @use begin_finally lazily
--- @use end_execution
--- @use failure_text lazily
--- @use run_facts
-- Ends an execution none of whose nodes is left to run, or begins its `finally`; the event that says so,
-- and its text. `known` are its run_facts, from whoever has asked already.
local function finish_execution(stream, active, execution_id, status, now_ms, known)
  local run = 'workflow:' .. execution_id .. ':run'
  known = known or run_facts(run)
  local has_failed, finally, ends_as = known[7], known[8], known[9]
  local state = has_failed == '1' and 'FAILED' or 'COMPLETED'
  if finally then
    local plan = redis.pcall('HGET', run, 'plan')
    local begun = begin_finally(stream, execution_id, finally, plan, state, status)
    if begun then
      return begun, execution_id
    end
  end
  local text = execution_id
  if ends_as == 'CANCELLED' then
    state = ends_as
  elseif state == 'FAILED' then
    text = text .. ' ' .. failure_text(run, redis.pcall('HGET', run, 'failure'))
  end
  return end_execution(stream, active, execution_id, state, now_ms, known), text
end
