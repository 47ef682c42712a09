--- @use announce
--- @use begin_finally
-- Counts nodes of an execution that is being cancelled as ended; with the last of them its `finally`
-- begins.
local function count_cancelled(stream, execution_id, count)
  local prefix = 'workflow:' .. execution_id
  local run = prefix .. ':run'
  if redis.pcall('HINCRBY', run, 'remaining', 0 - count) == 0 then
    local finally, plan = unpack(redis.pcall('HMGET', run, 'finally', 'plan'))
    redis.call('SET', prefix .. ':status', 'RUNNING')
    local event = begin_finally(stream, execution_id, finally, plan, 'CANCELLED', 'RUNNING')
    announce(event and { event, execution_id } or {})
  end
end
