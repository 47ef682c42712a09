--- @use announce
--- @use wake_node
-- Tells the node whose child has ended: it is woken in the same step. `parent` is what the child's run says,
-- `state` what it has ended as. A parent that does not list it is none of its own any more.
local function end_child(stream, child_id, parent, state)
  local parent_id, node_id, number = string.match(parent, '^(%x+) (%S+) (%d+) ')
  if not parent_id then
    return
  end
  local prefix = 'workflow:' .. parent_id
  if redis.pcall('HEXISTS', prefix .. ':children', child_id) == 1 then
    redis.pcall('HINCRBY', prefix .. ':run', 'children', -1)
    local happened = {}
    wake_node(stream, parent_id, node_id, 'child', child_id .. ' ' .. state, happened, number)
    announce(happened)
  end
end
