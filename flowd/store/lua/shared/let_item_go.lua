--- @use announce
--- @use is_live
--- @use is_outstanding
--- @use let_go
--- @use release_place
--- @use spend_reserved
--- @use wake_node
-- As let_go, also for an item of a map that was stopped, or whose execution is being cancelled: with the
-- last that runs the node it belongs to is woken, or ends. Places of limits are given back.
local function let_item_go(stream, execution_id, node_id, status)
  local above, index = string.match(node_id, '^(.+)%.(%d+)$')
  if not above then
    if let_go(stream, execution_id, node_id, status) then
      release_place(stream, execution_id, node_id)
    end
    return
  end
  local prefix = 'workflow:' .. execution_id
  local node, open = prefix .. ':node:' .. node_id, prefix .. ':map:' .. above .. ':open'
  local state, is_cancelling = redis.pcall('GET', node), status == 'CANCELLING'
  if is_cancelling and is_outstanding(state) then
    redis.call('SET', node, 'CANCELLED')
    spend_reserved(prefix .. ':run', node_id)
    release_place(stream, execution_id, node_id)
  elseif state ~= 'CANCELLED' or not is_cancelling and not is_live(status) then
    return
  end
  if redis.pcall('SREM', open, index) ~= 1 or redis.pcall('EXISTS', open) == 1 then
    return
  elseif not is_cancelling then
    local happened = {}
    wake_node(stream, execution_id, above, 'items', 'stopped', happened)
    announce(happened)
  elseif redis.pcall('GET', prefix .. ':node:' .. above) == 'WAITING' then
    let_go(stream, execution_id, above, status)
  end
end
