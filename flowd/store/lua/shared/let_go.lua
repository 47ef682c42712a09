--- @use count_cancelled
--- @use is_outstanding
--- @use spend_reserved
-- Takes leave of a node whose entry has gone while its execution is being cancelled: what its `finally`
-- cleans up after does not run any more. A node with `map` waits for its items that run, see let_item_go. True
-- for one that is cancelled by that: who does not go on to settle_limits gives back the place it has.
local function let_go(stream, execution_id, node_id, status)
  local prefix = 'workflow:' .. execution_id
  local node = prefix .. ':node:' .. node_id
  local state = redis.pcall('GET', node)
  if status ~= 'CANCELLING' or not is_outstanding(state) and state ~= 'WAITING' then
    return
  end
  spend_reserved(prefix .. ':run', node_id)
  if redis.pcall('EXISTS', prefix .. ':map:' .. node_id .. ':open') == 1 then
    redis.call('SET', node, 'WAITING')
  else
    redis.call('SET', node, 'CANCELLED')
    redis.pcall('HDEL', prefix .. ':waits', node_id)
    count_cancelled(stream, execution_id, 1)
    return true
  end
end
