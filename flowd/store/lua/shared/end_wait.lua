--- @use admit_item
--- @use has_place
--- @use park_node
--- @use reopen_node
-- Takes a node out of its wait, with its record and its date, and puts it in front of the workers:
-- whoever claims it ends it by what was decided, or waits anew where nothing was. Under PAUSED it is
-- kept until that ends. An item of a map that gave its place away queues for one. `more` are further fields
-- of its entry.
local function end_wait(stream, execution_id, node_id, status, more)
  local prefix, member = 'workflow:' .. execution_id, execution_id .. ' ' .. node_id
  redis.pcall('HDEL', prefix .. ':waits', node_id)
  redis.pcall('ZREM', 'flowd:retries', member)
  redis.pcall('ZREM', 'flowd:alarms', member)
  if not has_place(execution_id, node_id) then
    admit_item(stream, execution_id, node_id, status)
  elseif status == 'PAUSED' then
    park_node(execution_id, node_id, 0)
    redis.call('SET', prefix .. ':node:' .. node_id, 'PENDING')
  else
    reopen_node(stream, execution_id, node_id, 0, 0, more)
  end
end
