--- @use decision_of
--- @use end_waits
--- @use is_live
--- @use server_ms
--- @use woken_text
-- Decides what nodes of an execution wait for, or will, and wakes those that wait already: of each, once,
-- whether it waits already or will. `wakes` are node, what goes with it, and the number of the wait it is
-- about, by default the newest one. Returns for each an outcome, and the decision that stands where there
-- is one; what happened is added to `happened`.
--
-- 'woken'; 'kept' (it does not wait yet, and finds the decision when it does); 'decided' (somebody was
-- quicker); 'ended' (the node or its execution runs no more); 'unknown'; 'corrupt' (the key of the
-- decisions holds something flowd did not write).
local function wake_nodes(stream, execution_id, kind, wakes, happened)
  local prefix = 'workflow:' .. execution_id
  local keys, counts, node_ids = { prefix .. ':status' }, {}, {}
  for nth, wake in ipairs(wakes) do
    keys[nth + 1] = prefix .. ':node:' .. wake[1]
    counts[nth], node_ids[nth] = 'waits:' .. wake[1], wake[1]
  end
  local states = redis.call('MGET', unpack(keys))
  local waits = redis.pcall('HMGET', prefix .. ':run', unpack(counts))
  local before = redis.pcall('HMGET', prefix .. ':decisions', unpack(node_ids))
  local status, at_ms = states[1], nil
  local outcomes, decisions, standing, decided, woken, is_awake = {}, {}, {}, {}, {}, {}
  for nth, wake in ipairs(wakes) do
    local node_id, payload, number = unpack(wake)
    local state, text = states[nth + 1], standing[node_id] or before[nth]
    if not status or not state then
      outcomes[nth] = 'unknown'
    elseif state == 'COMPLETED' or state == 'SKIPPED' or state == 'FAILED' or state == 'CANCELLED'
        or status ~= 'PENDING' and not is_live(status) then
      decisions[nth] = decision_in(text, 1)
      outcomes[nth] = decisions[nth] and 'decided' or 'ended'
    elseif before.err then
      outcomes[nth] = 'corrupt'
    else
      local newest = tonumber(waits[nth]) or 1
      number = tonumber(number) or newest
      local is_woken = state == 'WAITING' and number == newest and not is_awake[node_id]
      decisions[nth] = decision_in(text, number)
      outcomes[nth] = decisions[nth] and 'decided' or is_woken and 'woken' or 'kept'
      if not decisions[nth] then
        at_ms = at_ms or server_ms()
        decisions[nth] = string.format('%s %s %.0f %s', number, kind, at_ms, payload)
        standing[node_id] = decisions[nth]
        decided[#decided + 1] = node_id
        decided[#decided + 1] = decisions[nth]
      end
      if is_woken then
        is_awake[node_id] = true
        woken[#woken + 1] = node_id
        happened[#happened + 1] = 'node.woken'
        happened[#happened + 1] = woken_text(execution_id, node_id, decisions[nth])
      end
    end
  end
  if decided[1] then
    redis.call('HSET', prefix .. ':decisions', unpack(decided))
    redis.pcall('HINCRBY', 'flowd:metrics', 'decided ' .. kind, #decided / 2)
  end
  if woken[1] then
    end_waits(stream, execution_id, woken, status)
  end
  return outcomes, decisions
end
