#!lua flags=allow-oom
--- @use spend_reserved
-- Sets tokens of a budget aside for one call, before it is made: the most it may cost. The budget is that
-- of the execution, or of one above it in its tree, the payer, where the sums stand.
-- What an earlier attempt of the node has set aside and nobody settled may have been spent, and counts
-- as such.
--
-- KEYS  1 run (hash)  2 run of the payer (hash)
-- ARGV  1 node id  2 attempt  3 tokens  4 budget, tokens  5 id of the payer, empty for the execution itself
-- RETURNS 'reserved' (also when it is said again), 'occupied' (it fits once other calls have ended),
--         'exhausted' (it never will) or 'gone' (the execution was deleted), followed by the tokens
--         spent and those set aside
local run, payer, field = KEYS[1], KEYS[2], 'tokens:reserved:' .. ARGV[1]
if redis.call('EXISTS', run) == 0 or redis.call('EXISTS', payer) == 0 then
  return { 'gone', 0, 0 }
end
local wanted, budget = tonumber(ARGV[3]), tonumber(ARGV[4])
local function number(name)
  return tonumber(redis.call('HGET', payer, name) or '0')
end
local attempt = string.match(redis.call('HGET', run, field) or '', '^(%d+) %d+')
if attempt == ARGV[2] then
  return { 'reserved', number('tokens:spent'), number('tokens:reserved') }
end
spend_reserved(run, ARGV[1])
local spent, reserved = number('tokens:spent'), number('tokens:reserved')
if spent + wanted > budget then
  return { 'exhausted', spent, reserved }
elseif spent + reserved + wanted > budget then
  return { 'occupied', spent, reserved }
end
redis.call('HSET', run, field, ARGV[2] .. ' ' .. ARGV[3] .. (ARGV[5] ~= '' and ' ' .. ARGV[5] or ''))
redis.call('HINCRBY', payer, 'tokens:reserved', wanted)
return { 'reserved', spent, reserved + wanted }
