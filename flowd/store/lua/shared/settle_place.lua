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

-- Gives what is free of a place to those who wait for it, the oldest first: each is put in front of the
-- workers as a holder. Looks at `most` of them, and leaves the others for the next call of a scheduler.
-- Who does not wait any more is struck off. Returns how many were looked at.
local function settle_place(stream, place, most)
  local holders, waiters = 'flowd:limit:' .. place, 'flowd:limit:' .. place .. ':waiters'
  local waiting, held = count_members(waiters), count_members(holders)
  if waiting == 0 then
    redis.call('ZREM', 'flowd:limits:due', place)
    if held == 0 then
      redis.call('ZREM', 'flowd:limits:places', place)
    end
    return 0
  end
  local rules, looked, happened, due_ms = limit_rules(place), 0, {}, nil
  local now_ms = steady_ms()
  due_ms = rules.interval_ms and due_start(place)
  while held < rules.max and looked < most
      and not (due_ms and due_ms - rules.ahead_ms > now_ms) do
    local member = redis.call('ZPOPMIN', waiters)[1]
    if not member then
      break
    end
    looked = looked + 1
    local execution_id, node_id = string.match(member, '^(%x+) (.+)$')
    local prefix = 'workflow:' .. execution_id
    local node = prefix .. ':node:' .. node_id
    local status, state = unpack(redis.call('MGET', prefix .. ':status', node))
    local is_queued = false
    if state == 'WAITING' and is_live(status) then
      end_waits(stream, execution_id, { node_id }, status, { 'place', '1' })
      is_queued = redis.call('GET', node) == 'QUEUED'
    end
    if is_queued then
      redis.call('ZADD', holders, now_ms, member)
      held = held + 1
      if rules.interval_ms then
        due_ms = count_start(place, rules, now_ms, due_ms)
      end
      happened[#happened + 1] = 'node.woken'
      happened[#happened + 1] = woken_text(execution_id, node_id, '0 slot')
    else
      redis.pcall('HDEL', prefix .. ':places', node_id)
    end
  end
  announce(happened)
  if redis.call('ZCARD', waiters) == 0 or held >= rules.max then
    redis.call('ZREM', 'flowd:limits:due', place)
    if held == 0 and rules.max > 0 then
      redis.call('ZREM', 'flowd:limits:places', place)
    end
  elseif due_ms and due_ms - rules.ahead_ms > now_ms then
    plan_settling(place, due_ms - rules.ahead_ms)
  else
    plan_settling(place, now_ms)
  end
  return looked
end
