--- @use append_attempt
--- @use keep_attempts
-- Puts nodes of an execution that have waited outside of the streams in front of the workers of their
-- queues, each as the attempt after its last; `unrecorded` is the last one of a node that has no record of
-- any, `more` are further fields of their entries.
local function reopen_nodes(stream, execution_id, node_ids, deaths, unrecorded, more)
  local prefix, fields = 'workflow:' .. execution_id, { 'plan', 'queue' }
  for _, node_id in ipairs(node_ids) do
    local size = #fields
    fields[size + 1], fields[size + 2] = 'failures:' .. node_id, 'waits:' .. node_id
    fields[size + 3], fields[size + 4] = 'error:' .. node_id, 'queue:' .. string.match(node_id, '^[^.]*')
  end
  local known = redis.pcall('HMGET', prefix .. ':run', unpack(fields))
  local lasts = redis.pcall('HMGET', prefix .. ':attempts', unpack(node_ids))
  local writes, records, over = {}, {}, {}
  for nth, node_id in ipairs(node_ids) do
    local failures, waits, error, queue = unpack(known, 4 * nth - 1, 4 * nth + 2)
    local last = lasts[nth]
    local attempt = type(last) == 'string' and tonumber(string.match(last, '^%d+')) or unrecorded
    queue = queue or known[2] or 'default'
    local own = queue == 'default' and stream or stream .. ':' .. queue
    over[nth] = { node_id, last, error or '' }
    records[2 * nth - 1] = node_id
    records[2 * nth] = append_attempt(own, execution_id, node_id, attempt + 1, known[1] or '', deaths,
      failures or '0', waits, more)
    writes[2 * nth - 1], writes[2 * nth] = prefix .. ':node:' .. node_id, 'QUEUED'
  end
  keep_attempts(execution_id, over)
  redis.call('MSET', unpack(writes))
  redis.pcall('HSET', prefix .. ':attempts', unpack(records))
end
