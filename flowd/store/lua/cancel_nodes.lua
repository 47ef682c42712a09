#!lua flags=allow-oom
-- Marks a slice of the nodes of a cancelled execution. Entries still in the stream go when a worker
-- meets them. Every slice may be sent twice.
--
-- KEYS  1 retries (zset)  2 continuations (zset)  3 alarms (zset)
-- ARGV  1 execution id  2 '1' with the last slice  3… ids of nodes
-- RETURNS how many were marked
local prefix = 'workflow:' .. ARGV[1]
local marked = 0
if redis.pcall('GET', prefix .. ':status') == 'CANCELLED' then
  for at = 3, #ARGV do
    local node = prefix .. ':node:' .. ARGV[at]
    local state = redis.pcall('GET', node)
    if state == 'RETRYING' or state == 'WAITING' then
      redis.call('ZREM', KEYS[1], ARGV[1] .. ' ' .. ARGV[at])
    end
    if state == 'WAITING' then
      redis.call('ZREM', KEYS[3], ARGV[1] .. ' ' .. ARGV[at])
      redis.pcall('HDEL', prefix .. ':waits', ARGV[at])
    end
    if state == 'PENDING' or state == 'QUEUED' or state == 'RUNNING' or state == 'RETRYING'
        or state == 'WAITING' then
      redis.call('SET', node, 'CANCELLED')
      marked = marked + 1
    end
  end
end
if ARGV[2] == '1' then
  redis.call('ZREM', KEYS[2], 'cancel ' .. ARGV[1])
end
return marked
