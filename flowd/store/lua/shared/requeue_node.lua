--- @use append_attempt
-- As append_attempt, and writes it down.
local function requeue_node(stream, execution_id, node_id, ...)
  local record = append_attempt(stream, execution_id, node_id, ...)
  local prefix = 'workflow:' .. execution_id
  redis.call('SET', prefix .. ':node:' .. node_id, 'QUEUED')
  redis.pcall('HSET', prefix .. ':attempts', node_id, record)
  return record
end
