-- Keeps a node that was given up for a person to look at, where there is a reason to.
local function keep_dead_letter(dead_letters, reason, entry_id, execution_id, node_id, record)
  if reason ~= '' then
    redis.pcall('XADD', dead_letters, 'MAXLEN', '~', 10000, '*', 'reason', reason, 'entry_id', entry_id,
      'execution_id', execution_id, 'node_id', node_id, 'attempt', record)
  end
end
