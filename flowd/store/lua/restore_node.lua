#!lua flags=allow-oom
--- @use decision_of
--- @use end_waits
--- @use is_live
--- @use let_item_go lazily
--- @use reopen_nodes
--- @use steady_ms
-- Gives a new entry to a node that is QUEUED or RUNNING but has none, a new date to one that is
-- RETRYING without one, and its own date again to one that is WAITING; one that nothing would wake
-- begins its wait anew. The caller has seen twice that there is none; that state and attempt are still
-- the same proves that none came since. One whose execution is being cancelled, and an item of a map that
-- was stopped, is let go instead.
--
-- KEYS  1 stream  2 status (string)  3 node (string)  4 attempts (hash)  5 retries (zset)
--       6 alarms (zset)  7 waits (hash)
-- ARGV  1 execution id  2 node id  3 state the caller saw  4 attempt record the caller saw, or empty
-- RETURNS 'restored', or 'moved' when the node has moved on
local status, state = unpack(redis.call('MGET', KEYS[2], KEYS[3]))
local is_cancelling = status == 'CANCELLING'
if not (is_live(status) or is_cancelling) or state ~= ARGV[3]
    or (redis.pcall('HGET', KEYS[4], ARGV[2]) or '') ~= ARGV[4] then
  return 'moved'
end
if is_cancelling or state == 'CANCELLED' then
  let_item_go(KEYS[1], ARGV[1], ARGV[2], status)
  return 'restored'
end
if redis.pcall('HEXISTS', 'workflow:' .. ARGV[1] .. ':parked', ARGV[2]) == 1 then
  -- Its time had come while the execution was paused; it waits for the end of that.
  return 'moved'
end
if state == 'RETRYING' then
  redis.call('ZADD', KEYS[5], 'NX', steady_ms(), ARGV[1] .. ' ' .. ARGV[2])
elseif state == 'WAITING' then
  local record = redis.pcall('HGET', KEYS[7], ARGV[2])
  local number, waker, due_ms, text
  if type(record) == 'string' then
    number, waker, due_ms, text = string.match(record, '^(%d+) (%l+) %d+ (%d+) (.*)$')
  end
  local child = waker == 'child' and redis.pcall('GET', 'workflow:' .. text .. ':status')
  local has_ended = waker == 'child' and not is_live(child) and child ~= 'CANCELLING'
  if due_ms and not has_ended and not decision_of(ARGV[1], ARGV[2], number) then
    local dates = waker == 'moment' and KEYS[6] or KEYS[5]
    redis.call('ZADD', dates, 'NX', due_ms, ARGV[1] .. ' ' .. ARGV[2])
  else
    end_waits(KEYS[1], ARGV[1], { ARGV[2] }, status)
  end
else
  reopen_nodes(KEYS[1], ARGV[1], { ARGV[2] }, 0, 1)
end
return 'restored'
