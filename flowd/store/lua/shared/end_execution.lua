--- @use end_children lazily
--- @use leave_follow lazily
--- @use return_place lazily
--- @use leave_schedule lazily
--- @use list_status
--- @use run_facts
--- @use steady_ms lazily
-- Ends an execution in this state, notes when, for its retention, and that somebody waits to be told;
-- the event that says so. The node it is the child of is woken, and what children of its own still run are
-- left to whoever follows. A set that is damaged stops nobody: the scheduler sets it aside. `known` are
-- its run_facts, from whoever has asked already.
local function end_execution(stream, active, execution_id, state, now_ms, known)
  local prefix = 'workflow:' .. execution_id
  local before = redis.pcall('SET', prefix .. ':status', state, 'GET')
  if type(before) == 'table' then
    redis.call('SET', prefix .. ':status', state)
  end
  list_status(execution_id, before, state)
  redis.pcall('SREM', active, execution_id)
  redis.pcall('ZADD', 'flowd:finished', now_ms, execution_id)
  redis.pcall('HINCRBY', 'flowd:metrics', 'executions ' .. state, 1)
  redis.pcall('HSET', prefix .. ':run', 'finished_ms', now_ms)
  local callback, schedule, parent, children, place, waiting = unpack(known or run_facts(prefix .. ':run'))
  if callback == '1' then
    redis.pcall('ZADD', 'flowd:callbacks', steady_ms(), execution_id)
  end
  if schedule then
    leave_schedule(schedule, execution_id)
  end
  if children then
    leave_follow(execution_id, children, '', now_ms)
  end
  if place then
    return_place(stream, active, execution_id, place, waiting, now_ms)
  end
  if parent then
    end_children(stream, { { execution_id, parent, state } })
  end
  return 'execution.' .. string.lower(state)
end
