#!lua flags=allow-oom
--- @use spend_reserved
-- Sets tokens of an execution's budget aside for one call, before it is made: the most it may cost.
-- What an earlier attempt of the node has set aside and nobody settled may have been spent, and counts
-- as such.
--
-- KEYS  1 run (hash)
-- ARGV  1 node id  2 attempt  3 tokens  4 budget, tokens
-- RETURNS 'reserved' (also when it is said again), 'occupied' (it fits once other calls have ended),
--         'exhausted' (it never will) or 'gone' (the execution was deleted), followed by the tokens
--         spent and those set aside
local run, field = KEYS[1], 'tokens:reserved:' .. ARGV[1]
if redis.call('EXISTS', run) == 0 then
  return { 'gone', 0, 0 }
end
local wanted, budget = tonumber(ARGV[3]), tonumber(ARGV[4])
local function number(name)
  return tonumber(redis.call('HGET', run, name) or '0')
end
local attempt = string.match(redis.call('HGET', run, field) or '', '^(%d+) %d+$')
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
redis.call('HSET', run, field, ARGV[2] .. ' ' .. ARGV[3])
redis.call('HINCRBY', run, 'tokens:reserved', wanted)
return { 'reserved', spent, reserved + wanted }
