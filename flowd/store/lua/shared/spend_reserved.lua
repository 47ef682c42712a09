-- Counts what a node has set aside of a budget as spent: its call may have been made, and nobody will say
-- any more what it cost. The budget is that of its execution, or of the one it names.
local function spend_reserved(run, node_id)
  local field = 'tokens:reserved:' .. node_id
  local held = redis.pcall('HGET', run, field)
  local amount, payer_id
  if type(held) == 'string' then
    amount, payer_id = string.match(held, '^%d+ (%d+) ?(%x*)$')
  end
  if amount then
    local payer = payer_id == '' and run or 'workflow:' .. payer_id .. ':run'
    redis.call('HDEL', run, field)
    if redis.call('EXISTS', payer) == 1 then
      redis.call('HINCRBY', payer, 'tokens:reserved', '-' .. amount)
      redis.call('HINCRBY', payer, 'tokens:spent', amount)
    end
  end
end
