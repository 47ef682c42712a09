--- @use open_items
-- Has an item of a map whose pause is over queue for a place behind the others that wait for one.
local function admit_item(stream, execution_id, item, status)
  local node_id, index = string.match(item, '^(.+)%.(%d+)$')
  local prefix = 'workflow:' .. execution_id
  local map = prefix .. ':map:' .. node_id
  if type(redis.pcall('HGET', map, 'stopped')) == 'string' then
    redis.call('SET', prefix .. ':node:' .. item, 'CANCELLED')
    return
  end
  redis.call('SET', prefix .. ':node:' .. item, 'PENDING')
  redis.pcall('RPUSH', map .. ':todo', index .. '+')
  open_items(stream, execution_id, node_id, status)
end
