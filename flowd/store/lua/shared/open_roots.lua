--- @use append_entry
--- @use park_node lazily
--- @use place_of
-- Opens the nodes of a new execution that depend on nothing: 'triggered'; 'continue' where they are too
-- many for one call, and stand nowhere: the caller opens them by advance_node. Their states are added to
-- `writes`, a flat list of key and value, which the caller writes.
local function open_roots(stream, continuations, execution_id, plan, roots, status, now_ms, writes)
  local node = 'workflow:' .. execution_id .. ':node:'
  for called in string.gmatch(roots, '[^,]+') do
    local own, node_id = place_of(stream, called)
    if status == 'PAUSED' then
      park_node(execution_id, node_id, 0)
    else
      append_entry(own, execution_id, node_id, plan)
      writes[#writes + 1] = node .. node_id
      writes[#writes + 1] = 'QUEUED'
    end
  end
  if roots ~= '' then
    return 'triggered'
  end
  redis.pcall('ZADD', continuations, now_ms, 'advance ' .. execution_id .. ' ')
  return 'continue'
end
