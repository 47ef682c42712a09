-- Puts a node into this stream again, as its next attempt; its record of that attempt. `waits` is
-- how often it has waited, nil or false where it never has; `more` are further fields of its entry.
local function append_attempt(stream, execution_id, node_id, attempt, plan, deaths, failures, waits, more)
  local fields = { unpack(more or {}) }
  if waits then
    fields[#fields + 1], fields[#fields + 2] = 'waits', waits
  end
  local entry_id = redis.call('XADD', stream, '*', 'execution_id', execution_id, 'node_id', node_id,
    'attempt', attempt, 'plan', plan, 'deaths', deaths, 'failures', failures, unpack(fields))
  return attempt .. ' ' .. string.match(entry_id, '%d+') .. ' - - -'
end
