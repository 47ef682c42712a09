--- @use admit_item
--- @use has_place
--- @use park_node
--- @use reopen_nodes
-- Takes nodes of an execution out of their waits, with their records and their dates, and puts them in front
-- of the workers: whoever claims one ends it by what was decided, or waits anew where nothing was. Under
-- PAUSED they are kept until that ends. An item of a map that gave its place away queues for one. `more` are
-- further fields of their entries.
local function end_waits(stream, execution_id, node_ids, status, more)
  local prefix, members, reopened = 'workflow:' .. execution_id, {}, {}
  for nth, node_id in ipairs(node_ids) do
    members[nth] = execution_id .. ' ' .. node_id
  end
  redis.pcall('HDEL', prefix .. ':waits', unpack(node_ids))
  redis.pcall('ZREM', 'flowd:retries', unpack(members))
  redis.pcall('ZREM', 'flowd:alarms', unpack(members))
  for _, node_id in ipairs(node_ids) do
    if not has_place(execution_id, node_id) then
      admit_item(stream, execution_id, node_id, status)
    elseif status == 'PAUSED' then
      park_node(execution_id, node_id, 0)
      redis.call('SET', prefix .. ':node:' .. node_id, 'PENDING')
    else
      reopened[#reopened + 1] = node_id
    end
  end
  if reopened[1] then
    reopen_nodes(stream, execution_id, reopened, 0, 0, more)
  end
end
