#!lua flags=allow-oom
--- @use announce
--- @use end_entry
--- @use is_live
--- @use is_outstanding
--- @use let_item_go lazily
--- @use place_of
--- @use settle_place
-- Asks for nodes whose workflow names a limit whether they may start: who gets a place holds it until it
-- ends, retries, waits or is held up, whoever runs it; who gets none waits for one outside of the stream.
-- Nobody overtakes those who wait already.
--
-- KEYS  1 stream
-- ARGV  1 group  2… six for each node: place, full name of its entry, execution id, node id, attempt record, how often
--       it has waited
-- RETURNS for each node 'admitted' (also when it holds a place already), 'waiting' (the entry is gone),
--         'stale' (the attempt was taken away) or 'ended' (the node or its execution runs no more; the
--         entry is gone)
local stream, group = KEYS[1], ARGV[1]
local now_ms = steady_ms()
local outcomes, happened, known = {}, {}, {}

local function place_named(place)
  local found = known[place]
  if not found then
    found = limit_rules(place)
    found.holders, found.waiters = 'flowd:limit:' .. place, 'flowd:limit:' .. place .. ':waiters'
    found.held, found.waiting = count_members(found.holders), count_members(found.waiters)
    found.due_ms = found.interval_ms and due_start(place)
    if found.held == 0 and found.waiting == 0 then
      redis.pcall('ZADD', 'flowd:limits:places', 0, place)
    end
    known[place] = found
  end
  return found
end

local keys = {}
for at = 2, #ARGV, 6 do
  local prefix = 'workflow:' .. ARGV[at + 2]
  keys[#keys + 1] = prefix .. ':status'
  keys[#keys + 1] = prefix .. ':node:' .. ARGV[at + 3]
end
local states = redis.call('MGET', unpack(keys))

for at = 2, #ARGV, 6 do
  local place, entry, execution_id, node_id, record =
    ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local prefix, member = 'workflow:' .. execution_id, execution_id .. ' ' .. node_id
  local nth = #outcomes + 1
  local status, node = states[2 * nth - 1], keys[2 * nth]
  local own, entry_id = place_of(stream, entry)
  if #redis.call('XRANGE', own, entry_id, entry_id) == 0 then
    outcomes[nth] = 'stale'
  elseif not is_live(status) or not is_outstanding(states[2 * nth]) then
    end_entry(stream, group, entry)
    let_item_go(stream, execution_id, node_id, status)
    outcomes[nth] = 'ended'
  else
    local limit = place_named(place)
    local is_free = limit.waiting == 0 and limit.held < limit.max
      and not (limit.due_ms and limit.due_ms - limit.ahead_ms > now_ms)
    local is_holder = redis.call('ZSCORE', limit.holders, member)
    if is_holder or is_free then
      -- A holder that asks again is one whose worker is gone: its call may be made a second time.
      if limit.interval_ms then
        limit.due_ms = count_start(place, limit, now_ms, math.max(limit.due_ms or now_ms, now_ms))
      end
      if not is_holder then
        redis.call('ZADD', limit.holders, now_ms, member)
        redis.pcall('HSET', prefix .. ':places', node_id, place)
        limit.held = limit.held + 1
      end
      outcomes[nth] = 'admitted'
    else
      end_entry(stream, group, entry)
      redis.call('SET', node, 'WAITING')
      redis.pcall('HSET', prefix .. ':attempts', node_id, record)
      redis.pcall('HSET', prefix .. ':places', node_id, place)
      redis.pcall('HSET', prefix .. ':waits', node_id,
        string.format('%s slot %.0f - %s', ARGV[at + 5], now_ms, place))
      redis.call('ZADD', limit.waiters, 'NX', string.match(entry_id, '^%d+'), member)
      if limit.waiting == 0 and limit.held < limit.max then
        plan_settling(place, limit.due_ms - limit.ahead_ms)
      end
      limit.waiting = limit.waiting + 1
      happened[#happened + 1] = 'node.waiting'
      happened[#happened + 1] = execution_id .. ' ' .. node_id .. ' ' .. record .. '\n'
        .. cjson.encode({ waits_for = 'slot', limit = place })
      outcomes[nth] = 'waiting'
    end
  end
end
announce(happened)
return outcomes
