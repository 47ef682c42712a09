#!lua flags=allow-oom
--- @use is_live
-- Puts executions that run back among the active, those that have ended among the finished, and each into
-- the list of its state and out of the others: where they are missing, somebody has taken them out, the
-- key was damaged, or a version wrote them that knows no such list. So are those that hold a place, or wait
-- for one.
--
-- KEYS  1 active (set)  2 finished (zset)  3 names (zset)
-- ARGV  1 now, ms  2 '1' to list them by their names too  3… execution ids
-- RETURNS the ids of those that run and were not among the active
local states = { 'PENDING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED' }
local statuses, ended, readmitted, names, lists = {}, {}, {}, {}, {}
for at = 3, #ARGV do
  statuses[at - 2] = 'workflow:' .. ARGV[at] .. ':status'
end

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

local function note(list, ...)
  for _, one in ipairs({ ... }) do
    list[#list + 1] = one
  end
end
for _, state in ipairs(states) do
  lists[state] = { is = {}, is_not = {} }
end
for nth, status in ipairs(redis.call('MGET', unpack(statuses))) do
  local execution_id = ARGV[nth + 2]
  if is_live(status) or status == 'CANCELLING' or status == 'PENDING' then
    list_place(execution_id, status)
  end
  if is_live(status) or status == 'CANCELLING' then
    if redis.call('SADD', KEYS[1], execution_id) == 1 then
      readmitted[#readmitted + 1] = execution_id
    end
  elseif status == 'COMPLETED' or status == 'FAILED' or status == 'CANCELLED' then
    note(ended, ARGV[1], execution_id)
  end
  for state, list in pairs(lists) do
    if state == status then
      note(list.is, 0, execution_id)
    else
      note(list.is_not, execution_id)
    end
  end
  local name = status and ARGV[2] == '1'
    and redis.pcall('HGET', 'workflow:' .. execution_id .. ':run', 'name')
  if type(name) == 'string' then
    note(names, 0, name .. '\0' .. execution_id)
  end
end
if ended[1] then
  redis.call('ZADD', KEYS[2], 'NX', unpack(ended))
end
for _, state in ipairs(states) do
  if lists[state].is[1] then
    redis.pcall('ZADD', 'flowd:status:' .. state, unpack(lists[state].is))
  end
  if lists[state].is_not[1] then
    redis.pcall('ZREM', 'flowd:status:' .. state, unpack(lists[state].is_not))
  end
end
if names[1] then
  redis.pcall('ZADD', KEYS[3], unpack(names))
end
return readmitted
