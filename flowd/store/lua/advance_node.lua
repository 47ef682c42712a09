#!lua flags=allow-oom
--- @use arrivals
--- @use is_live
--- @use open_node
--- @use place_of
-- Opens one more slice of the dependents of a node that has ended and has too many for one call, or of
-- an execution's roots (then the node id is empty). The offset makes a repeated slice harmless.
--
-- KEYS  1 run (hash)  2 status (string)  3 stream  4 continuations (zset)
-- ARGV  1 execution id  2 node id  3 plan digest  4 offset of this slice  5 number of dependents
--       6 what arrives at each: 'completed', 'skipped' or 'failed'
--       7… for each dependent of the slice its full name and how many it waits for
-- RETURNS the offset the next slice begins at; the number of dependents when all is done; the error
--         WRONGTYPE when run holds something flowd did not write
local execution_id, node_id, plan = ARGV[1], ARGV[2], ARGV[3]
local progress, total = 'opened:' .. node_id, tonumber(ARGV[5])
local verb = ARGV[6] == 'failed' and 'look ' or 'advance '
local function close()
  redis.pcall('HDEL', KEYS[1], progress)
  redis.pcall('ZREM', KEYS[4], verb .. execution_id .. ' ' .. node_id)
  return total
end
if not redis.call('ZSCORE', KEYS[4], verb .. execution_id .. ' ' .. node_id) then
  return total
end
local status = redis.pcall('GET', KEYS[2])
if not is_live(status) then
  return close()
end
local offset = tonumber(redis.call('HGET', KEYS[1], progress) or '0')
if not offset then
  return redis.error_reply('WRONGTYPE ' .. progress .. ' is not a number')
elseif offset ~= tonumber(ARGV[4]) then
  return offset
end
local arrival = ARGV[6] == 'completed' and 1 or ARGV[6] == 'skipped' and SKIPPED or FAILED
for at = 7, #ARGV, 2 do
  local needed, arrived = tonumber(ARGV[at + 1]), 1
  if needed > 1 or needed == 1 and arrival ~= 1 then
    local _, dependent = place_of(KEYS[3], ARGV[at])
    arrived = redis.pcall('HINCRBY', KEYS[1], 'arrived:' .. dependent, arrival)
  end
  if needed <= 1 or type(arrived) == 'number' and arrived % ARRIVALS == needed then
    open_node(KEYS[3], execution_id, ARGV[at], plan, status)
  end
  offset = offset + 1
end
if offset == total then
  return close()
end
redis.call('HSET', KEYS[1], progress, offset)
return offset
