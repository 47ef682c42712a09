--- @use announce
--- @use end_execution
--- @use is_live
--- @use leave_follow
--- @use list_status
--- @use note_halt
-- Ends an execution before its time: 'cancelled' (also when it was before), 'cancelling' while there is a
-- `finally` to run, 'unknown', or the state that cannot be cancelled. Its nodes follow by cancel_nodes. One
-- with a `finally` becomes CANCELLING, in which nothing opens or starts, until the last of its other nodes
-- is cancelled; where those have ended already, what runs goes on and it ends as CANCELLED. `is_forced`
-- leaves out `finally`, or what is left of it.
local function cancel_execution(stream, active, execution_id, now_ms, is_forced)
  local prefix, continuations = 'workflow:' .. execution_id, 'flowd:continuations'
  local status = redis.pcall('GET', prefix .. ':status')
  if status == 'CANCELLED' then
    return 'cancelled'
  elseif status ~= 'PENDING' and status ~= 'CANCELLING' and not is_live(status) then
    return status or 'unknown'
  end
  local finally, ends_as, children =
    unpack(redis.pcall('HMGET', prefix .. ':run', 'finally', 'ends_as', 'children'))
  local event
  if status == 'PENDING' or is_forced or not (finally or ends_as) then
    event = end_execution(stream, active, execution_id, 'CANCELLED', now_ms)
  elseif status == 'CANCELLING' then
    return 'cancelling'
  else
    event = 'execution.cancelling'
    if finally then
      redis.call('SET', prefix .. ':status', 'CANCELLING')
      list_status(execution_id, status, 'RUNNING')
    else
      redis.call('HSET', prefix .. ':run', 'ends_as', 'CANCELLED')
      if status == 'PAUSED' then
        redis.call('SET', prefix .. ':status', 'RUNNING')
        list_status(execution_id, status, 'RUNNING')
        redis.pcall('ZADD', continuations, now_ms, 'resume ' .. execution_id)
      elseif ends_as == 'CANCELLED' then
        return 'cancelling'
      end
    end
  end
  if event ~= 'execution.cancelling' or finally then
    redis.pcall('ZADD', continuations, now_ms, 'cancel ' .. execution_id)
    redis.call('DEL', prefix .. ':parked')
    note_halt(stream, 'flowd:halted')
  end
  -- Those of its `finally` may be paused.
  leave_follow(execution_id, children, is_forced and 'force' or 'hold', now_ms)
  announce({ event, execution_id })
  return event == 'execution.cancelling' and 'cancelling' or 'cancelled'
end
