-- False for an item of a map that has given its place away.
local function has_place(execution_id, node_id)
  local above, index = string.match(node_id, '^(.+)%.(%d+)$')
  return not above
    or redis.pcall('SISMEMBER', 'workflow:' .. execution_id .. ':map:' .. above .. ':open', index) ~= 0
end
