--- @use steady_ms
-- Has the callback of a schedule tell of times that had no execution, beside those it has not told of yet:
-- however long its receiver is away, there is one call to make. `last_ms` is the last of them.
local function tell_times(name, word, count, last_ms)
  local callback = 'flowd:schedule:' .. name .. ':callback'
  local state, attempts, told_ms = unpack(redis.pcall('HMGET', callback, 'state', 'attempts', 'last_ms'))
  if state ~= 'PENDING' then
    -- Attempts are counted on: one that comes back late is not to be taken for one of these.
    redis.pcall('HSET', callback, 'state', 'PENDING', 'before', attempts or 0)
    told_ms = false
  end
  redis.pcall('HINCRBY', callback, word, count)
  if not told_ms or tonumber(told_ms) < tonumber(last_ms) then
    redis.pcall('HSET', callback, 'last_ms', last_ms)
  end
  redis.pcall('ZADD', 'flowd:callbacks', 'NX', steady_ms(), 'schedule ' .. name)
end
