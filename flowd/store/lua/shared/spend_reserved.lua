-- Counts what a node has set aside of its execution's budget as spent: its call may have been made, and
-- nobody will say any more what it cost.
local function spend_reserved(run, node_id)
  local field = 'tokens:reserved:' .. node_id
  local held = redis.pcall('HGET', run, field)
  local amount = type(held) == 'string' and string.match(held, '^%d+ (%d+)$')
  if amount then
    redis.call('HDEL', run, field)
    redis.call('HINCRBY', run, 'tokens:reserved', '-' .. amount)
    redis.call('HINCRBY', run, 'tokens:spent', amount)
  end
end
