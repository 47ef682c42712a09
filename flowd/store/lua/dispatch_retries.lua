#!lua flags=allow-oom
--- @use admit_item
--- @use announce
--- @use is_live
--- @use park_node
--- @use reopen_nodes
--- @use server_ms
--- @use steady_ms
--- @use wake_node
--- @use walk_limit lazily
-- Puts nodes in front of the workers whose next attempt is due, or whose wait is over, and those who wait
-- for a place of a limit that has one again.
--
-- KEYS  1 retries (zset), by the clock that never goes back  2 stream  3 alarms (zset), by the server's
--       4 places to be settled (zset), by the first clock: a place, or a limit and the place behind which to go on
-- ARGV  1 the most to move of each
-- RETURNS how many were due, and how many ms are left until the next one, or an empty text when there
--         is none
local happened, moved, left_ms = {}, 0, nil

local function dispatch(member)
  local execution_id, node_id = string.match(member, '^(%x+) (.+)$')
  local prefix = 'workflow:' .. (execution_id or '')
  local status, state =
    unpack(redis.call('MGET', prefix .. ':status', prefix .. ':node:' .. (node_id or '')))
  if state == 'RETRYING' and string.find(node_id, '.', 1, true) then
    if is_live(status) then
      admit_item(KEYS[2], execution_id, node_id, status)
    end
  elseif state == 'RETRYING' and status == 'RUNNING' then
    reopen_nodes(KEYS[2], execution_id, { node_id }, 0, 1)
  elseif state == 'RETRYING' and status == 'PAUSED' then
    park_node(execution_id, node_id, 0)
  elseif state == 'WAITING' then
    wake_node(KEYS[2], execution_id, node_id, 'date', '', happened)
  end
end

local function dispatch_due(dates, now_ms)
  local next_ms = redis.call('ZRANGE', dates, 0, 0, 'WITHSCORES')[2]
  if next_ms and tonumber(next_ms) <= now_ms then
    local due = redis.call('ZRANGEBYSCORE', dates, '-inf', now_ms, 'LIMIT', 0, ARGV[1])
    for _, member in ipairs(due) do
      dispatch(member)
      redis.call('ZREM', dates, member)
    end
    moved = math.max(moved, #due)
    next_ms = redis.call('ZRANGE', dates, 0, 0, 'WITHSCORES')[2]
  end
  if next_ms then
    left_ms = math.min(left_ms or math.huge, math.max(0, math.ceil(next_ms - now_ms)))
  end
end

dispatch_due(KEYS[1], steady_ms())
dispatch_due(KEYS[3], server_ms())
local now_ms, place, due_ms = steady_ms(), unpack(redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES'))
while place and tonumber(due_ms) <= now_ms and moved < tonumber(ARGV[1]) do
  local name, after = string.match(place, '^(%S+) (%S+)$')
  redis.call('ZREM', KEYS[4], place)
  moved = moved + walk_limit(KEYS[2], name or place, after, ARGV[1] - moved) + 1
  place, due_ms = unpack(redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES'))
end
if place then
  left_ms = math.min(left_ms or math.huge, math.max(0, math.ceil(due_ms - now_ms)))
end
announce(happened)
return { moved, left_ms or '' }
