-- Takes an output out of the cache, and out of what is counted of it.
local function forget_output(name)
  redis.call('DEL', 'flowd:cache:' .. name)
  redis.call('ZREM', 'flowd:cache', name)
  local size = tonumber(redis.call('HGET', 'flowd:cache:sizes', name) or nil)
  if size then
    redis.call('HDEL', 'flowd:cache:sizes', name)
    redis.call('HINCRBY', 'flowd:cache:sizes', 'total', string.format('%.0f', 0 - size))
  end
  return size and 1 or 0
end
