--- @use announce
--- @use append_entry
--- @use arrivals
--- @use end_entries
--- @use finish_execution lazily
--- @use is_live
--- @use is_outstanding
--- @use let_go lazily
--- @use park_node lazily
--- @use place_of
-- Commits a batch of nodes that have all ended in one way, advances their dependents, and returns an
-- outcome for each: the body of complete_nodes, skip_nodes and allow_failures, which say what KEYS and
-- ARGV hold; `width` is the number of arguments of a node without those of its dependents. `write_end`
-- writes down how one has ended, and returns what its event says besides, where there is anything. A
-- dependent that counts arrivals counts `arrival` for each; where that is not 1, it is told its single
-- dependents too, since they have to know how it came to that.
local function end_nodes(write_end, event, arrival, width)
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

  -- What is to be written by one MSET: key, value, key, value …
  local writes, size = {}, 0
  local function write(key, value)
    writes[size + 1], writes[size + 2] = key, value
    size = size + 2
    if size == 4000 then
      call('MSET', unpack(writes, 1, size))
      size = 0
    end
  end

  local function open_node(execution_id, called, plan, status)
    if status == 'PAUSED' then
      return park_node(execution_id, select(2, place_of(stream, called)), 0)
    end
    local node_id = append_entry(stream, execution_id, called, plan)
    write('workflow:' .. execution_id .. ':node:' .. node_id, 'QUEUED')
  end

  local happened = {}
  local function note(what, text)
    happened[#happened + 1] = what
    happened[#happened + 1] = text
  end

  -- Commits nodes that stand next to each other in the batch and belong to one execution: whatever
  -- changes its counters is added up first.
  local function commit(nths)
    local execution_id, plan = ARGV[starts[nths[1]]], ARGV[starts[nths[1]] + 2]
    local prefix, status = 'workflow:' .. execution_id, states[2 * nths[1] - 1]
    local run, outcome, records = prefix .. ':run', 'completed', {}
    local arrivals, needed
    for at_record, nth in ipairs(nths) do
      local at, node = starts[nth], keys[2 * nth]
      local more = write_end(write, node, nth, at)
      records[2 * at_record - 1], records[2 * at_record] = ARGV[at + 1], ARGV[at + 3]
      note(event, execution_id .. ' ' .. ARGV[at + 1] .. ' ' .. ARGV[at + 3] .. (more or ''))
      local joins_at = at + width + ARGV[at + 5]
      for open_at = at + width, joins_at - 1 do
        if arrival ~= 1 then
          local _, opened = place_of(stream, ARGV[open_at])
          pcall('HINCRBY', run, 'arrived:' .. opened, arrival)
        end
        open_node(execution_id, ARGV[open_at], plan, status)
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
        pcall('ZADD', continuations, now_ms, 'advance ' .. execution_id .. ' ' .. ARGV[at + 1])
      end
    end
    pcall('HSET', prefix .. ':attempts', unpack(records))
    for join, count_here in pairs(arrivals or {}) do
      local _, node_id = place_of(stream, join)
      local arrived = pcall('HINCRBY', run, 'arrived:' .. node_id, count_here)
      if type(arrived) ~= 'number' then
        outcome = 'corrupt'
      elseif arrived % ARRIVALS == tonumber(needed[join]) then
        open_node(execution_id, join, plan, status)
      end
    end
    local remaining = pcall('HINCRBY', run, 'remaining', -#nths)
    if remaining == 0 then
      local event, text = finish_execution(stream, active, execution_id, status, now_ms)
      note(event, text)
      return event == 'execution.completed' and 'finished' or event == 'execution.failed' and 'failed'
        or event == 'execution.cancelled' and 'cancelled' or outcome
    elseif type(remaining) ~= 'number' or remaining < 0 then
      return 'corrupt'
    end
    return outcome
  end

  local outcomes, is_done, together = {}, {}, {}
  local function settle()
    local outcome = commit(together)
    for _, nth in ipairs(together) do
      outcomes[nth] = outcome == 'corrupt' and outcome or 'completed'
    end
    outcomes[together[#together]] = outcome
    together = {}
  end
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
      if together[1] and ARGV[starts[together[1]]] ~= ARGV[starts[nth]] then
        settle()
      end
      together[#together + 1] = nth
    end
  end
  if together[1] then
    settle()
  end
  if size > 0 then
    call('MSET', unpack(writes, 1, size))
  end
  announce(happened)
  outcomes[count + 1] = tonumber(states[2 * count + 1] or 0) or 0
  return outcomes
end
