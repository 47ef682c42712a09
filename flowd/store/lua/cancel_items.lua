#!lua flags=allow-oom
--- @use is_live
--- @use release_place
-- Marks a slice of the items of a map that was stopped, or whose execution was cancelled, as CANCELLED,
-- those that have not ended; what never had a place has no state. Every slice may be sent twice. Before a
-- `finally` items that have an entry keep their state and place until that goes, see let_item_go.
--
-- KEYS  1 status (string)  2 map (hash)  3 retries (zset)  4 alarms (zset)  5 waits (hash)
--       6 items that have a place (set)  7 stream
-- ARGV  1 execution id  2 node id  3 index of the first  4 index behind the last
-- RETURNS how many were marked
local status, marked = redis.pcall('GET', KEYS[1]), 0
local is_cancelling = status == 'CANCELLING'
if status == 'CANCELLED' or is_cancelling or is_live(status) and redis.pcall('HGET', KEYS[2], 'stopped') then
  for index = tonumber(ARGV[3]), ARGV[4] - 1 do
    local at = string.format('%.0f', index)
    local item = ARGV[2] .. '.' .. at
    local node, member = 'workflow:' .. ARGV[1] .. ':node:' .. item, ARGV[1] .. ' ' .. item
    local state = redis.pcall('GET', node)
    local has_entry = state == 'QUEUED' or state == 'RUNNING'
    if state == 'RETRYING' or state == 'WAITING' then
      redis.pcall('ZREM', KEYS[3], member)
      redis.pcall('ZREM', KEYS[4], member)
      redis.pcall('HDEL', KEYS[5], item)
    end
    if state == 'PENDING' or state == 'RETRYING' or state == 'WAITING'
        or has_entry and not is_cancelling then
      redis.call('SET', node, 'CANCELLED')
      redis.pcall('SREM', KEYS[6], at)
      release_place(KEYS[7], ARGV[1], item)
      marked = marked + 1
    end
  end
end
return marked
