--- @use announce
--- @use end_waits lazily
--- @use is_live
--- @use limit_rules
--- @use ring_dates
--- @use woken_text
-- Notes when those who wait for a place are looked at next, and rings where that is earlier than before.
local function plan_settling(place, at_ms)
  local before_ms = tonumber(redis.pcall('ZSCORE', 'flowd:limits:due', place) or nil)
  redis.call('ZADD', 'flowd:limits:due', string.format('%.0f', math.ceil(at_ms)), place)
  if not before_ms or before_ms > at_ms then
    ring_dates(place)
  end
end

-- Puts nodes that have waited for a place in front of the workers as its holders; how many. `turns` are
-- they and by when each counts as having come, by turns. Who does not wait any more is struck off.
local function end_turns(stream, place, turns, now_ms, happened)
  local nodes, keys, together, held = {}, {}, {}, {}
  for at = 1, #turns, 2 do
    local execution_id, node_id = string.match(turns[at], '^(%x+) (.+)$')
    local prefix = 'workflow:' .. execution_id
    nodes[at] = { execution_id, node_id }
    keys[at], keys[at + 1] = prefix .. ':status', prefix .. ':node:' .. node_id
  end
  local before = redis.call('MGET', unpack(keys))
  for at = 1, #turns, 2 do
    local execution_id, node_id = unpack(nodes[at])
    if before[at + 1] == 'WAITING' and is_live(before[at]) then
      together[#together + 1] = node_id
    end
    local is_last = not nodes[at + 2] or nodes[at + 2][1] ~= execution_id
    if is_last and together[1] then
      end_waits(stream, execution_id, together, before[at], { 'place', '1' })
      together = {}
    end
  end
  local after = redis.call('MGET', unpack(keys))
  for at = 1, #turns, 2 do
    local execution_id, node_id = unpack(nodes[at])
    if before[at + 1] == 'WAITING' and after[at + 1] == 'QUEUED' then
      held[#held + 1], held[#held + 2] = now_ms, turns[at]
      happened[#happened + 1] = 'node.woken'
      happened[#happened + 1] = woken_text(execution_id, node_id, '0 slot')
    else
      redis.pcall('HDEL', 'workflow:' .. execution_id .. ':places', node_id)
    end
  end
  if held[1] then
    redis.call('ZADD', 'flowd:limit:' .. place, unpack(held))
  end
  return #held / 2
end

-- Gives what is free of these places to those who wait for them, the oldest first. Looks at `most` of each
-- place, and leaves the others for the next call of a scheduler. Returns how many were looked at.
local function settle_places(stream, places, most)
  local looked, happened, settled, unused = 0, {}, {}, {}
  for _, place in ipairs(places) do
    local holders, waiters = 'flowd:limit:' .. place, 'flowd:limit:' .. place .. ':waiters'
    local waiting, held, left = count_members(waiters), count_members(holders), most
    local rules, now_ms, due_ms
    if waiting > 0 then
      rules, now_ms = limit_rules(place), steady_ms()
      due_ms = rules.interval_ms and due_start(place)
    end
    while waiting > 0 and left > 0 and held < rules.max and not (due_ms and due_ms - rules.ahead_ms > now_ms) do
      -- Where there is a rate each start is counted before the next.
      local count = rules.interval_ms and 1 or math.min(waiting, left, rules.max - held)
      local turns = redis.call('ZPOPMIN', waiters, count)
      local started = end_turns(stream, place, turns, now_ms, happened)
      if rules.interval_ms and started > 0 then
        due_ms = count_start(place, rules, now_ms, due_ms)
      end
      held, waiting, left, looked = held + started, waiting - count, left - count, looked + count
    end
    if waiting > 0 and held < rules.max then
      plan_settling(place, math.max(now_ms, due_ms and due_ms - rules.ahead_ms or 0))
    else
      settled[#settled + 1] = place
      unused[#unused + 1] = waiting + held == 0 and place or nil
    end
  end
  announce(happened)
  if settled[1] then
    redis.call('ZREM', 'flowd:limits:due', unpack(settled))
  end
  if unused[1] then
    redis.call('ZREM', 'flowd:limits:places', unpack(unused))
  end
  return looked
end
