--- @use announce
--- @use wake_nodes
-- Tells the nodes whose children have ended: they are woken in the same step. `ended` are, of each child, its
-- id, what its run says of its parent, and what it has ended as. A parent that does not list it is none of
-- its own any more.
local function end_children(stream, ended)
  local parents, order, happened = {}, {}, {}
  for _, child in ipairs(ended) do
    local child_id, parent, state = unpack(child)
    local parent_id, node_id, number = string.match(parent, '^(%x+) (%S+) (%d+) ')
    if parent_id then
      if not parents[parent_id] then
        parents[parent_id] = { children = {}, wakes = {} }
        order[#order + 1] = parent_id
      end
      local own = parents[parent_id]
      own.children[#own.children + 1] = child_id
      own.wakes[#own.wakes + 1] = { node_id, child_id .. ' ' .. state, number }
    end
  end
  for _, parent_id in ipairs(order) do
    local prefix, own, wakes = 'workflow:' .. parent_id, parents[parent_id], {}
    local listed = redis.pcall('HMGET', prefix .. ':children', unpack(own.children))
    for nth, wake in ipairs(own.wakes) do
      wakes[#wakes + 1] = listed[nth] and wake or nil
    end
    if wakes[1] then
      redis.pcall('HINCRBY', prefix .. ':run', 'children', -#wakes)
      wake_nodes(stream, parent_id, 'child', wakes, happened)
    end
  end
  announce(happened)
end
