--- @use admit_execution
--- @use announce
--- @use ask_place lazily
--- @use await_place lazily
--- @use make_execution
--- @use open_roots
--- @use take_place lazily
-- Makes new executions of one workflow and starts each in the same step.
--
-- What they have in common are values of ARGV, `first` says where: group, now (ms), definition (JSON),
-- state to start in (RUNNING or PAUSED), plan, roots, labels (a line `name=value` each), `concurrency` as
-- the run says it, or empty, number of values of the run, the run, field and value, number of nodes not yet
-- staged, their ids.
local function read_making(first)
  local at = first + 9
  local last = at + ARGV[at - 1]
  local making = { group = ARGV[first], now_ms = ARGV[first + 1], definition = ARGV[first + 2],
    status = ARGV[first + 3], plan = ARGV[first + 4], roots = ARGV[first + 5],
    labels = ARGV[first + 6], concurrency = ARGV[first + 7], count = last - at, values = {},
    next = last + 1 + ARGV[last] }
  for one = at, making.next - 1 do
    if one ~= last then
      making.values[#making.values + 1] = ARGV[one]
    end
    if ARGV[one] == 'queues' and one < last and (one - at) % 2 == 0 then
      making.queues = ARGV[one + 1]
    end
  end
  return making
end

-- One of them: 'triggered'; 'continue'; where it asks for a place, and all are taken, 'waiting' or
-- 'replaced' and ids, see await_place, or 'refused'; or the error of a shared key that is damaged: then, as
-- with 'refused', nothing of it was written. `given` is its input (JSON), or empty; `own` what its run says
-- beside, field and value; `place` what it asks a place of, where they have a `concurrency`.
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
  return open_roots(names.stream, names.continuations, execution_id, making.plan, making.roots,
    making.status, making.now_ms, {})
end
