#!lua flags=allow-oom
-- Says what a call has cost, in place of what was set aside for it, and adds it to the execution's sums,
-- and to those of the payer.
--
-- KEYS  1 run (hash)  2 run of the payer (hash), see reserve_tokens
-- ARGV  1 node id  2 attempt  3 tokens to count as spent, or empty for all that was set aside
--       4 prompt tokens  5 completion tokens  6 total tokens
-- RETURNS 'settled', 'again' when this attempt was settled before, or 'gone' when the execution was
--         deleted meanwhile: a key written for it now nobody would ever delete
local run, payer, node_id, attempt = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local has_payer = redis.call('EXISTS', payer) == 1
if redis.call('EXISTS', run) == 0 then
  return 'gone'
end
if redis.call('HGET', run, 'tokens:settled:' .. node_id) == attempt then
  return 'again'
end
redis.call('HSET', run, 'tokens:settled:' .. node_id, attempt)
local field = 'tokens:reserved:' .. node_id
local of_attempt, amount = string.match(redis.call('HGET', run, field) or '', '^(%d+) (%d+)')
if of_attempt == attempt then
  redis.call('HDEL', run, field)
  if has_payer then
    redis.call('HINCRBY', payer, 'tokens:reserved', '-' .. amount)
    redis.call('HINCRBY', payer, 'tokens:spent', ARGV[3] == '' and amount or ARGV[3])
  end
end
for _, one in ipairs({ run, has_payer and payer ~= run and payer or nil }) do
  redis.call('HINCRBY', one, 'tokens:calls', 1)
  redis.call('HINCRBY', one, 'tokens:prompt', ARGV[4])
  redis.call('HINCRBY', one, 'tokens:completion', ARGV[5])
  redis.call('HINCRBY', one, 'tokens:total', ARGV[6])
end
return 'settled'
