--- @use open_node
-- Opens the nodes of a new execution that depend on nothing: 'triggered'; 'continue' where they are too
-- many for one call, and stand nowhere: the caller opens them by advance_node.
local function open_roots(stream, continuations, execution_id, plan, roots, status, now_ms)
  for node_id in string.gmatch(roots, '[^,]+') do
    open_node(stream, execution_id, node_id, plan, status)
  end
  if roots ~= '' then
    return 'triggered'
  end
  redis.pcall('ZADD', continuations, now_ms, 'advance ' .. execution_id .. ' ')
  return 'continue'
end
