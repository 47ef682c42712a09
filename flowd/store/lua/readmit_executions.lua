#!lua flags=allow-oom
--- @use is_live
-- Puts executions that run back among the active, and those that have ended among the finished:
-- where they are missing, somebody has taken them out, or the key was damaged. So are those that hold a
-- place, or wait for one.
--
-- KEYS  1 active (set)  2 finished (zset)
-- ARGV  1 now, ms  2… execution ids
-- RETURNS the ids of those that run and were not among the active
local statuses, ended, readmitted = {}, {}, {}

local function list_place(execution_id, status)
  local place, waiting = unpack(redis.pcall('HMGET', 'workflow:' .. execution_id .. ':run', 'place', 'waiting'))
  local digest = place and string.match(place, '^%x+')
  local since_ms = waiting and string.match(waiting, '^%d+')
  if digest and status ~= 'PENDING' then
    redis.call('ZADD', 'flowd:concurrency:holders', 0, digest .. ' ' .. execution_id)
  elseif digest and since_ms then
    redis.call('ZADD', 'flowd:concurrency:waiters', 0,
      string.format('%s %015d %s', digest, since_ms, execution_id))
  end
end

for at = 2, #ARGV do
  statuses[at - 1] = 'workflow:' .. ARGV[at] .. ':status'
end
for nth, status in ipairs(redis.call('MGET', unpack(statuses))) do
  local execution_id = ARGV[nth + 1]
  if is_live(status) or status == 'CANCELLING' or status == 'PENDING' then
    list_place(execution_id, status)
  end
  if is_live(status) or status == 'CANCELLING' then
    if redis.call('SADD', KEYS[1], execution_id) == 1 then
      readmitted[#readmitted + 1] = execution_id
    end
  elseif status == 'COMPLETED' or status == 'FAILED' or status == 'CANCELLED' then
    ended[#ended + 1] = ARGV[1]
    ended[#ended + 1] = execution_id
  end
end
if ended[1] then
  redis.call('ZADD', KEYS[2], 'NX', unpack(ended))
end
return readmitted
