#!lua flags=allow-oom
--- @use announce
--- @use dating_ms
--- @use decision_of
--- @use end_entries
--- @use end_waits lazily
--- @use is_live
--- @use is_outstanding
--- @use leave_place lazily
--- @use let_item_go lazily
--- @use woken_text
-- Takes nodes out of the stream until what they wait for has come; where that has come already, they go
-- back at once.
--
-- KEYS  1 stream  2 retries (zset)  3 alarms (zset)  4 bell (list)
-- ARGV  1 group  2 number of nodes  3… the names of their entries, all of one queue, then for each node:
--       execution id, node id, attempt record, number of this wait, from 1, what wakes it: 'date' (as many
--       ms from now as the next says), 'moment' (at the next, Unix ms), or the kind of what will be
--       decided, with a date only where the next is not empty; due, ms, or empty; text for whoever looks,
--       or empty; 'keep' where it goes on counting the attempts that failed, 'leave' for an item of a map
--       that gives its place away meanwhile, or empty
-- RETURNS for each 'waiting', 'woken' (it had come), 'stale' or 'ended', as complete_nodes
local WIDTH, count = 8, tonumber(ARGV[2])
local is_stale = end_entries(KEYS[1], ARGV[1], 3, 2 + count)
local outcomes, happened, now_ms = {}, {}, nil

local keys = {}
for nth = 1, count do
  local at = 3 + count + WIDTH * (nth - 1)
  keys[2 * nth - 1] = 'workflow:' .. ARGV[at] .. ':status'
  keys[2 * nth] = 'workflow:' .. ARGV[at] .. ':node:' .. ARGV[at + 1]
end
local states = redis.call('MGET', unpack(keys))

-- Notes until when it waits at most, as text, `-` for ever.
local function note_date(member, waker, due)
  if due == '' then
    return '-'
  end
  local dates = waker == 'moment' and KEYS[3] or KEYS[2]
  local due_ms = string.format('%.0f', waker == 'moment' and due or now_ms + due)
  redis.pcall('ZADD', dates, due_ms, member)
  if redis.pcall('ZRANGE', dates, 0, 0)[1] == member then
    -- Whoever sleeps until the next one is due has to look again.
    redis.call('DEL', KEYS[4])
    redis.call('LPUSH', KEYS[4], member)
  end
  return due_ms
end

-- Those of one execution that stand next to each other in the batch.
local function wait_together(nths, execution_id, status)
  local prefix = 'workflow:' .. execution_id
  local attempts, run, over, asked = {}, {}, {}, {}
  for _, nth in ipairs(nths) do
    local at = 3 + count + WIDTH * (nth - 1)
    local node_id = ARGV[at + 1]
    attempts[#attempts + 1], attempts[#attempts + 2] = node_id, ARGV[at + 2]
    run[#run + 1], run[#run + 2] = 'waits:' .. node_id, ARGV[at + 3]
    asked[#asked + 1] = node_id
    if ARGV[at + 7] ~= 'keep' then
      for _, field in ipairs({ 'failures:', 'error:', 'report:' }) do
        over[#over + 1] = field .. node_id
      end
    end
  end
  redis.pcall('HSET', prefix .. ':attempts', unpack(attempts))
  redis.pcall('HSET', prefix .. ':run', unpack(run))
  if over[1] then
    redis.pcall('HDEL', prefix .. ':run', unpack(over))
  end
  now_ms = now_ms or dating_ms()
  local decisions = redis.pcall('HMGET', prefix .. ':decisions', unpack(asked))
  local records, writes, leaving, woken = {}, {}, {}, {}
  for of_these, nth in ipairs(nths) do
    local at = 3 + count + WIDTH * (nth - 1)
    local node_id, record, number, waker, due, text = unpack(ARGV, at + 1, at + 6)
    happened[#happened + 1] = 'node.waiting'
    happened[#happened + 1] = execution_id .. ' ' .. node_id .. ' ' .. record .. '\n'
      .. cjson.encode({ waits_for = waker, child = waker == 'child' and text or nil })
    local decision = decision_in(decisions[of_these], number)
    if decision then
      woken[#woken + 1] = node_id
      happened[#happened + 1] = 'node.woken'
      happened[#happened + 1] = woken_text(execution_id, node_id, decision)
      outcomes[nth] = 'woken'
    else
      local due_ms = note_date(execution_id .. ' ' .. node_id, waker, due)
      records[#records + 1] = node_id
      records[#records + 1] = string.format('%s %s %.0f %s %s', number, waker, now_ms, due_ms, text)
      writes[#writes + 1], writes[#writes + 2] = keys[2 * nth], 'WAITING'
      leaving[#leaving + 1] = ARGV[at + 7] == 'leave' and node_id or nil
      outcomes[nth] = 'waiting'
    end
  end
  if records[1] then
    redis.pcall('HSET', prefix .. ':waits', unpack(records))
    redis.call('MSET', unpack(writes))
  end
  if woken[1] then
    end_waits(KEYS[1], execution_id, woken, status)
  end
  for _, node_id in ipairs(leaving) do
    leave_place(KEYS[1], execution_id, node_id, status)
  end
end

local together, is_done = {}, {}
local function settle()
  if together[1] then
    wait_together(together, ARGV[3 + count + WIDTH * (together[1] - 1)], states[2 * together[1] - 1])
    together = {}
  end
end
for nth = 1, count do
  local at, status = 3 + count + WIDTH * (nth - 1), states[2 * nth - 1]
  if is_stale[nth] then
    outcomes[nth] = 'stale'
  elseif not is_outstanding(states[2 * nth]) or not is_live(status) or is_done[keys[2 * nth]] then
    outcomes[nth] = 'ended'
    let_item_go(KEYS[1], ARGV[at], ARGV[at + 1], status)
  else
    is_done[keys[2 * nth]] = true
    if together[1] and keys[2 * together[1] - 1] ~= keys[2 * nth - 1] then
      settle()
    end
    together[#together + 1] = nth
  end
end
settle()
announce(happened)
return outcomes
