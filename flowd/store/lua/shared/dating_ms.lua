--- @use steady_ms
-- The same clock, for whoever writes a date by it. Schedulers look at it once a second, and note how far
-- it has come: where it is far beyond that, it was put forward, and is to be known here before it is put
-- back, or what is written now would wait for it to come so far again.
local function dating_ms()
  local now_ms = steady_ms()
  local last_ms = redis.pcall('HGET', 'flowd:clock', 'last_ms')
  local is_known = type(last_ms) == 'string' and (tonumber(last_ms) or 0) > now_ms - 5000
  if not is_known then
    redis.pcall('HSET', 'flowd:clock', 'last_ms', string.format('%.0f', now_ms))
  end
  return now_ms
end
