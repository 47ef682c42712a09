--- @use count_cancelled
--- @use is_outstanding
--- @use spend_reserved
-- Takes leave of a node whose entry has gone while its execution is being cancelled: what its `finally`
-- cleans up after does not run any more. An item of a map counts from when it was marked, see cancel_items.
local function let_go(stream, execution_id, node_id, status)
  local prefix = 'workflow:' .. execution_id
  local node = prefix .. ':node:' .. node_id
  if status == 'CANCELLING' and is_outstanding(redis.pcall('GET', node)) then
    redis.call('SET', node, 'CANCELLED')
    spend_reserved(prefix .. ':run', node_id)
    local map, index = string.match(node_id, '^(.+)%.(%d+)$')
    if not map or redis.pcall('SREM', prefix .. ':map:' .. map .. ':open', index) ~= 1 then
      count_cancelled(stream, execution_id, 1)
    end
  end
end
