--- @use ring_dates
-- Notes when a schedule is looked at next: at its next time, and where somebody waits for a place, soon in
-- any case, as whoever holds it may be gone without a word.
local function plan_look(due, name, next_ms, waits, now_ms)
  local look_ms = tonumber(next_ms) or math.huge
  if waits then
    look_ms = math.min(look_ms > now_ms and look_ms or math.huge, now_ms + 60000)
  end
  if look_ms == math.huge then
    redis.call('ZREM', due, name)
    return
  end
  redis.call('ZADD', due, string.format('%.0f', look_ms), name)
  if redis.call('ZRANGE', due, 0, 0)[1] == name then
    ring_dates(name)
  end
end
