--- @use admit_execution
--- @use announce
--- @use ask_place lazily
--- @use await_place lazily
--- @use make_execution
--- @use open_roots
--- @use take_place lazily
--- @use write_all
-- Makes a new execution of a workflow, see read_making, and starts it in the same step: 'triggered';
-- 'continue'; where it asks for a place, and all are taken, 'waiting' or 'replaced' and ids, see await_place,
-- or 'refused'; or the error of a shared key that is damaged: then, as with 'refused', nothing of it was
-- written. `given` is its input (JSON), or empty; `own` what its run says beside, field and value; `place`
-- what it asks a place of, where it has a `concurrency`.
local function begin_execution(making, names, execution_id, given, own, place)
  local asked = making.concurrency ~= '' and ask_place(place, making.concurrency)
  if asked and asked ~= 'free' and asked ~= 'full' then
    return asked
  end
  local damage = asked ~= 'full'
    and admit_execution(names.active, names.stream, making.group, execution_id, making.queues)
  local listed = damage or redis.pcall('ZADD', names.executions, 0, execution_id)
  if type(listed) ~= 'number' then
    redis.call('SREM', names.active, execution_id)
    return listed
  end
  local prefix = 'workflow:' .. execution_id
  if given ~= '' then
    redis.call('SET', prefix .. ':input', given)
  end
  if own[1] then
    redis.call('HSET', prefix .. ':run', unpack(own))
  end
  local text = execution_id .. (making.told or '')
  make_execution(execution_id, making.definition, making.labels, making.values, 1, making.count,
    asked == 'full' and 'PENDING' or making.status)
  if asked == 'full' then
    announce({ 'execution.submitted', text })
    return await_place(names.stream, names.active, making.group, execution_id, place, making.concurrency,
      making.now_ms, making.told or '')
  elseif asked then
    take_place(execution_id, place)
  end
  announce({ 'execution.submitted', text, 'execution.triggered', text })
  local writes = {}
  local outcome = open_roots(names.stream, names.continuations, execution_id, making.plan, making.roots,
    making.status, making.now_ms, writes)
  write_all(writes)
  return outcome
end
