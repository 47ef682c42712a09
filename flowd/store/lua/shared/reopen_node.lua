--- @use keep_attempt
--- @use requeue_node
-- Puts a node that has waited outside of the streams in front of the workers of its queue, as the attempt
-- after its last; `unrecorded` is the last one of a node that has no record of any.
local function reopen_node(stream, execution_id, node_id, deaths, unrecorded, more)
  local prefix = 'workflow:' .. execution_id
  local last = redis.pcall('HGET', prefix .. ':attempts', node_id)
  local attempt = type(last) == 'string' and tonumber(string.match(last, '^%d+')) or unrecorded
  local known = redis.pcall('HMGET', prefix .. ':run', 'plan', 'failures:' .. node_id,
    'waits:' .. node_id, 'error:' .. node_id, 'queue:' .. string.match(node_id, '^[^.]*'), 'queue')
  local plan, failures, waits = known[1] or '', known[2] or '0', known[3]
  keep_attempt(execution_id, node_id, last, known[4] or '')
  local queue = known[5] or known[6] or 'default'
  local own = queue == 'default' and stream or stream .. ':' .. queue
  return requeue_node(own, execution_id, node_id, attempt + 1, plan, deaths, failures, waits,
    more)
end
