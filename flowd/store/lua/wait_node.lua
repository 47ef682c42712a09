#!lua flags=allow-oom
--- @use announce
--- @use decision_of
--- @use end_entry
--- @use end_wait
--- @use is_live
--- @use is_outstanding
--- @use leave_place
--- @use let_item_go lazily
--- @use dating_ms
--- @use woken_text
-- Takes a node out of the stream until what it waits for has come; where that has come already, it goes
-- back at once.
--
-- KEYS  1 stream  2 retries (zset)  3 alarms (zset)  4 bell (list)
-- ARGV  1 group  2 name of its entry  3 execution id  4 node id  5 attempt record  6 number of this wait, from 1
--       7 what wakes it: 'date' (as many ms from now as 8 says), 'moment' (at 8, Unix ms), or the kind
--         of what will be decided, with a date only where 8 is not empty
--       8 due, ms, or empty  9 text for whoever looks, or empty  10 '1' for an item of a map that gives
--       its place away meanwhile
-- RETURNS 'waiting', 'woken' (it had come), 'stale' or 'ended', as complete_nodes
local execution_id, node_id, number, waker = ARGV[3], ARGV[4], ARGV[6], ARGV[7]
local prefix, member = 'workflow:' .. execution_id, execution_id .. ' ' .. node_id
if not end_entry(KEYS[1], ARGV[1], ARGV[2]) then
  return 'stale'
end
local node, run = prefix .. ':node:' .. node_id, prefix .. ':run'
local status, state = unpack(redis.call('MGET', prefix .. ':status', node))
if not is_live(status) or not is_outstanding(state) then
  let_item_go(KEYS[1], execution_id, node_id, status)
  return 'ended'
end
redis.pcall('HSET', prefix .. ':attempts', node_id, ARGV[5])
redis.pcall('HSET', run, 'waits:' .. node_id, number)
local child
if waker == 'child' then
  -- Its failures say which child it is.
  child = ARGV[9]
else
  redis.pcall('HDEL', run, 'failures:' .. node_id, 'error:' .. node_id, 'report:' .. node_id)
end
local happened = { 'node.waiting', execution_id .. ' ' .. node_id .. ' ' .. ARGV[5] .. '\n'
  .. cjson.encode({ waits_for = waker, child = child }) }
local decision = decision_of(execution_id, node_id, number)
if decision then
  end_wait(KEYS[1], execution_id, node_id, status)
  happened[3], happened[4] = 'node.woken', woken_text(execution_id, node_id, decision)
  announce(happened)
  return 'woken'
end
local now_ms, due_ms = dating_ms(), '-'
if ARGV[8] ~= '' then
  local dates = waker == 'moment' and KEYS[3] or KEYS[2]
  due_ms = string.format('%.0f', waker == 'moment' and ARGV[8] or now_ms + ARGV[8])
  redis.pcall('ZADD', dates, due_ms, member)
  if redis.pcall('ZRANGE', dates, 0, 0)[1] == member then
    -- Whoever sleeps until the next one is due has to look again.
    redis.call('DEL', KEYS[4])
    redis.call('LPUSH', KEYS[4], member)
  end
end
redis.pcall('HSET', prefix .. ':waits', node_id,
  string.format('%s %s %.0f %s %s', number, waker, now_ms, due_ms, ARGV[9]))
redis.call('SET', node, 'WAITING')
if ARGV[10] == '1' then
  leave_place(KEYS[1], execution_id, node_id, status)
end
announce(happened)
return 'waiting'
