--- @use open_items
-- Gives the place of an item of a map that waits for a date to the next one.
local function leave_place(stream, execution_id, item, status)
  local node_id, index = string.match(item, '^(.+)%.(%d+)$')
  redis.pcall('SREM', 'workflow:' .. execution_id .. ':map:' .. node_id .. ':open', index)
  open_items(stream, execution_id, node_id, status)
end
