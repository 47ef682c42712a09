--- @use decide_wait
--- @use end_wait
--- @use is_live
--- @use woken_text
-- Decides what a node waits for, or will, and wakes it if it waits already. Returns an outcome, and the
-- decision that stands where there is one; what happened is added to `happened`.
--
-- 'woken'; 'kept' (it does not wait yet, and finds the decision when it does); 'decided' (somebody was
-- quicker); 'ended' (the node or its execution runs no more); 'unknown'; 'corrupt' (the key of the
-- decisions holds something flowd did not write). It is about the wait of this number, by default the
-- newest one.
local function wake_node(stream, execution_id, node_id, kind, payload, happened, number)
  local prefix = 'workflow:' .. execution_id
  local status, state =
    unpack(redis.call('MGET', prefix .. ':status', prefix .. ':node:' .. node_id))
  if not status or not state then
    return 'unknown'
  end
  local has_ended = state == 'COMPLETED' or state == 'SKIPPED' or state == 'FAILED'
    or state == 'CANCELLED'
  if has_ended or status ~= 'PENDING' and not is_live(status) then
    local decision = decision_of(execution_id, node_id, 1)
    return decision and 'decided' or 'ended', decision
  end
  local waits = redis.pcall('HGET', prefix .. ':run', 'waits:' .. node_id)
  local newest = type(waits) == 'string' and tonumber(waits) or 1
  number = tonumber(number) or newest
  local decision, is_new = decide_wait(execution_id, node_id, number, kind, payload)
  if not decision then
    return 'corrupt'
  end
  local is_woken = state == 'WAITING' and number == newest
  if is_woken then
    end_wait(stream, execution_id, node_id, status)
    happened[#happened + 1] = 'node.woken'
    happened[#happened + 1] = woken_text(execution_id, node_id, decision)
  end
  return not is_new and 'decided' or is_woken and 'woken' or 'kept', decision
end
