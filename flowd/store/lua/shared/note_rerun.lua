-- Writes down at the execution that this one reruns, where it does and that is still there, what reruns it.
local function note_rerun(execution_id)
  local source = redis.pcall('HGET', 'workflow:' .. execution_id .. ':run', 'rerun_of')
  if type(source) == 'string' and redis.call('EXISTS', 'workflow:' .. source .. ':status') == 1 then
    redis.pcall('HSET', 'workflow:' .. source .. ':run', 'rerun_as', execution_id)
  end
end
