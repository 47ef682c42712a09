-- Writes down at the execution that this one reruns, where it does and that is still there, what reruns it.
-- No execution has the name of what is said where it reruns none.
local function note_rerun(execution_id)
  local source = 'workflow:' .. tostring(redis.pcall('HGET', 'workflow:' .. execution_id .. ':run', 'rerun_of'))
  if redis.call('EXISTS', source .. ':status') == 1 then
    redis.pcall('HSET', source .. ':run', 'rerun_as', execution_id)
  end
end
