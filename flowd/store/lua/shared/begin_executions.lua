--- @use admit_execution
--- @use announce
--- @use list_status
--- @use open_roots
--- @use place_of
--- @use write_all
-- As begin_execution, of several that ask for no place and of which no nodes were staged: what all of them
-- write into is written once. `starting` are, of each, its id, its input (JSON), or empty, what its run says
-- beside, the state it starts in and what its events say beside. Their outcomes in this order, or the error
-- of a shared key that is damaged: then nothing was written.
local function begin_executions(making, names, starting)
  local ids, listed, named = {}, {}, {}
  for nth, one in ipairs(starting) do
    ids[nth] = one.id
    listed[2 * nth - 1], listed[2 * nth] = 0, one.id
    named[2 * nth - 1], named[2 * nth] = 0, making.values[2] .. '\0' .. one.id
  end
  local damage = admit_execution(names.active, names.stream, making.group, ids[1], making.queues)
    or redis.pcall('ZADD', names.executions, unpack(listed))
  if type(damage) == 'table' then
    redis.call('SREM', names.active, ids[1])
    return damage
  end
  redis.call('SADD', names.active, unpack(ids))
  redis.pcall('ZADD', 'flowd:names', unpack(named))
  local run, happened, outcomes = { unpack(making.values, 1, making.count) }, {}, {}
  local writes, is_root = {}, {}
  for called in string.gmatch(making.roots, '[^,]+') do
    local _, node_id = place_of(names.stream, called)
    is_root[node_id] = true
  end
  for nth, one in ipairs(starting) do
    local prefix, text = 'workflow:' .. one.id, one.id .. one.told
    for at, value in ipairs(one.own) do
      run[making.count + at] = value
    end
    redis.call('HSET', prefix .. ':run', unpack(run, 1, making.count + #one.own))
    local node, size = prefix .. ':node:', #writes
    writes[size + 1], writes[size + 2] = prefix, making.definition
    if one.given ~= '' then
      writes[size + 3], writes[size + 4] = prefix .. ':input', one.given
    end
    for at = making.count + 1, #making.values do
      -- What begins at once is written with its entry.
      if one.status == 'PAUSED' or not is_root[making.values[at]] then
        writes[#writes + 1] = node .. making.values[at]
        writes[#writes + 1] = 'PENDING'
      end
    end
    writes[#writes + 1] = prefix .. ':status'
    writes[#writes + 1] = one.status
    for label in string.gmatch(making.labels, '[^\n]+') do
      redis.pcall('ZADD', 'flowd:label:' .. label, 0, one.id)
    end
    list_status(one.id, nil, one.status)
    for _, event in ipairs({ 'execution.submitted', 'execution.triggered' }) do
      happened[#happened + 1] = event
      happened[#happened + 1] = text
    end
    if one.status == 'PAUSED' then
      happened[#happened + 1] = 'execution.paused'
      happened[#happened + 1] = one.id
    end
    outcomes[nth] = open_roots(names.stream, names.continuations, one.id, making.plan, making.roots, one.status,
      making.now_ms, writes)
  end
  write_all(writes)
  announce(happened)
  return outcomes
end
