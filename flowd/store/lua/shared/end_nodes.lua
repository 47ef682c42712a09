--- @use announce
--- @use append_entry
--- @use arrivals
--- @use end_children lazily
--- @use end_entries
--- @use end_plainly
--- @use finish_execution lazily
--- @use is_live
--- @use is_outstanding
--- @use let_go lazily
--- @use park_node
--- @use place_of
--- @use run_facts
--- @use write_all
-- Commits a batch of nodes that have all ended in one way, advances their dependents, and returns an
-- outcome for each: what complete_nodes, skip_nodes and allow_failures go on with, which say what KEYS and
-- ARGV hold. They have set `event`, the event of each, and `width`, the number of arguments of a node
-- without those of its dependents. `write_end` adds to `writes`, a flat list of key and value, how one has
-- ended, and returns what its event says besides, where there is anything. A dependent that counts arrivals
-- counts `arrival` for each; where that is not 1, it is told its single dependents too, since they have to
-- know how it came to that.
local call, pcall = redis.call, redis.pcall
local stream, active, continuations = KEYS[1], KEYS[2], KEYS[3]
local group, now_ms, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local is_stale = end_entries(stream, group, 4, 3 + count)

local starts, keys = {}, {}
local at = 4 + count
for nth = 1, count do
  local prefix = 'workflow:' .. ARGV[at]
  starts[nth] = at
  keys[2 * nth - 1] = prefix .. ':status'
  keys[2 * nth] = prefix .. ':node:' .. ARGV[at + 1]
  at = at + width + ARGV[at + 5] + 2 * ARGV[at + 6]
end
keys[2 * count + 1] = 'flowd:halted'
local states = call('MGET', unpack(keys))

-- Those that are to end, together what stands next to each other and belongs to one execution: whatever
-- changes its counters is added up first.
local outcomes, is_done, groups, together = {}, {}, {}, nil
for nth = 1, count do
  local status, state, node = states[2 * nth - 1], states[2 * nth], keys[2 * nth]
  if is_stale[nth] then
    outcomes[nth] = 'stale'
  elseif not is_live(status) or not is_outstanding(state) or is_done[node] then
    -- The node says so itself when somebody has put it into the stream a second time.
    outcomes[nth] = 'ended'
    let_go(stream, ARGV[starts[nth]], ARGV[starts[nth] + 1], status)
  else
    is_done[node] = true
    if together and ARGV[starts[together[1]]] == ARGV[starts[nth]] then
      together[#together + 1] = nth
    else
      together = { nth }
      groups[#groups + 1] = together
    end
  end
end

local writes, happened, ended, children = {}, {}, {}, {}
for _, nths in ipairs(groups) do
  local first = starts[nths[1]]
  local execution_id, plan, status = ARGV[first], ARGV[first + 2], states[2 * nths[1] - 1]
  local prefix = 'workflow:' .. execution_id
  local run, node_prefix, outcome, records = prefix .. ':run', prefix .. ':node:', 'completed', {}
  local opened, arrived_at, arrivals, needed = {}, {}, nil, nil
  for at_record, nth in ipairs(nths) do
    local at = starts[nth]
    local node_id, record = ARGV[at + 1], ARGV[at + 3]
    local more = write_end(writes, keys[2 * nth], nth, at)
    outcomes[nth] = 'completed'
    records[2 * at_record - 1], records[2 * at_record] = node_id, record
    happened[#happened + 1] = event
    happened[#happened + 1] = execution_id .. ' ' .. node_id .. ' ' .. record .. (more or '')
    local joins_at = at + width + ARGV[at + 5]
    for open_at = at + width, joins_at - 1 do
      opened[#opened + 1] = ARGV[open_at]
      if arrival ~= 1 then
        local _, dependent = place_of(stream, ARGV[open_at])
        local arrived = pcall('HINCRBY', run, 'arrived:' .. dependent, arrival)
        arrived_at[ARGV[open_at]] = type(arrived) == 'number' and arrived or nil
      end
    end
    if ARGV[at + 6] ~= '0' then
      arrivals, needed = arrivals or {}, needed or {}
      for join_at = joins_at, joins_at + 2 * ARGV[at + 6] - 1, 2 do
        local join = ARGV[join_at]
        arrivals[join] = (arrivals[join] or 0) + arrival
        needed[join] = ARGV[join_at + 1]
      end
    end
    if ARGV[at + 7] ~= '0' then
      pcall('ZADD', continuations, now_ms, 'advance ' .. execution_id .. ' ' .. node_id)
    end
  end
  pcall('HSET', prefix .. ':attempts', unpack(records))
  if arrivals then
    for join, count_here in pairs(arrivals) do
      local _, node_id = place_of(stream, join)
      local arrived = pcall('HINCRBY', run, 'arrived:' .. node_id, count_here)
      if type(arrived) ~= 'number' then
        outcome = 'corrupt'
      elseif arrived % ARRIVALS == tonumber(needed[join]) then
        opened[#opened + 1] = join
        arrived_at[join] = arrived >= ARRIVALS and arrived or nil
      end
    end
  end
  for _, called in ipairs(opened) do
    local own, node_id = place_of(stream, called)
    if status == 'PAUSED' then
      park_node(execution_id, node_id, 0)
    else
      local arrived = arrived_at[called]
      if arrived then
        -- More than dependencies that have completed: its worker need not look that up.
        call('XADD', own, '*', 'execution_id', execution_id, 'node_id', node_id, 'attempt', '1',
          'plan', plan, 'arrived', string.format('%.0f', arrived))
      else
        append_entry(own, execution_id, node_id, plan)
      end
      writes[#writes + 1] = node_prefix .. node_id
      writes[#writes + 1] = 'QUEUED'
    end
  end
  local remaining = pcall('HINCRBY', run, 'remaining', -#nths)
  if remaining == 0 then
    local known, is_special, parent = run_facts(run)
    if status == 'RUNNING' and not is_special then
      writes[#writes + 1] = prefix .. ':status'
      writes[#writes + 1] = 'COMPLETED'
      ended[#ended + 1] = execution_id
      if parent then
        children[#children + 1] = { execution_id, parent, 'COMPLETED' }
      end
      happened[#happened + 1] = 'execution.completed'
      happened[#happened + 1] = execution_id
      outcome = 'finished'
    else
      local said, text = finish_execution(stream, active, execution_id, status, now_ms, known)
      happened[#happened + 1] = said
      happened[#happened + 1] = text
      outcome = said == 'execution.completed' and 'finished' or said == 'execution.failed' and 'failed'
        or said == 'execution.cancelled' and 'cancelled' or outcome
    end
  elseif type(remaining) ~= 'number' or remaining < 0 then
    outcome = 'corrupt'
  end
  for at_record = outcome == 'corrupt' and 1 or #nths, #nths do
    outcomes[nths[at_record]] = outcome
  end
end
write_all(writes)
if ended[1] then
  end_plainly(active, ended, now_ms)
end
announce(happened)
if children[1] then
  end_children(stream, children)
end
outcomes[count + 1] = tonumber(states[2 * count + 1] or 0) or 0
return outcomes
