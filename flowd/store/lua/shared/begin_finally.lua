--- @use open_node
-- Opens the nodes of `finally` when all others of an execution have ended or are cancelled, and says so:
-- the event, or nothing where the run hash does not say which they are. From here on `remaining` counts
-- these, and `ends_as` is what the others came to.
local function begin_finally(stream, execution_id, written, plan, ends_as, status)
  local count, roots = string.match(written or '', '^(%d+) (.+)$')
  if not count then
    return nil
  end
  local run = 'workflow:' .. execution_id .. ':run'
  redis.call('HSET', run, 'remaining', count, 'ends_as', ends_as)
  redis.call('HDEL', run, 'finally')
  for node_id in string.gmatch(roots, '[^,]+') do
    open_node(stream, execution_id, node_id, plan or '', status)
  end
  return 'execution.finally_started'
end
