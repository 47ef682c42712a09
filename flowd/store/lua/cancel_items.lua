#!lua flags=allow-oom
--- @use is_live
-- Marks a slice of the items of a map that was stopped, or whose execution was cancelled, as CANCELLED,
-- those that have not ended; what never had a place has no state. Every slice may be sent twice. Before a
-- `finally` items that have an entry are marked when that goes, and until then count as nodes do.
--
-- KEYS  1 status (string)  2 map (hash)  3 retries (zset)  4 alarms (zset)  5 waits (hash)
--       6 items that have a place (set)  7 run (hash)
-- ARGV  1 execution id  2 node id  3 index of the first  4 index behind the last
-- RETURNS how many were marked
local status, marked = redis.pcall('GET', KEYS[1]), 0
local is_cancelling = status == 'CANCELLING'
if status == 'CANCELLED' or is_cancelling or is_live(status) and redis.pcall('HGET', KEYS[2], 'stopped') then
  for index = tonumber(ARGV[3]), ARGV[4] - 1 do
    local item = ARGV[2] .. '.' .. string.format('%.0f', index)
    local node, member = 'workflow:' .. ARGV[1] .. ':node:' .. item, ARGV[1] .. ' ' .. item
    local state = redis.pcall('GET', node)
    if state == 'RETRYING' or state == 'WAITING' then
      redis.pcall('ZREM', KEYS[3], member)
      redis.pcall('ZREM', KEYS[4], member)
      redis.pcall('HDEL', KEYS[5], item)
    end
    if is_cancelling and (state == 'QUEUED' or state == 'RUNNING') then
      if redis.pcall('SREM', KEYS[6], string.format('%.0f', index)) == 1 then
        redis.call('HINCRBY', KEYS[7], 'remaining', 1)
      end
    elseif state == 'PENDING' or state == 'QUEUED' or state == 'RUNNING' or state == 'RETRYING'
        or state == 'WAITING' then
      redis.call('SET', node, 'CANCELLED')
      marked = marked + 1
    end
  end
end
return marked
