#!lua
--- @use forget_output
--- @use steady_ms
-- Keeps outputs of nodes for equal calls, each for its time, and forgets what is over; what is then more
-- than may be kept goes too, what would be over soonest first. Not while Redis is at its memory limit: a
-- cache is no reason to lose anything else.
--
-- KEYS  1 cache (zset)  2 sizes (hash)
-- ARGV  1 the most bytes  2… three for each output: its name, for how many ms, the output (JSON)
-- RETURNS 'kept', or 'more' when there is more to be forgotten
local most, now_ms = tonumber(ARGV[1]), steady_ms()
for at = 2, #ARGV, 3 do
  local name, ttl_ms, output = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  forget_output(name)
  redis.call('SET', 'flowd:cache:' .. name, string.format('%.0f %s %s', now_ms, ttl_ms, output), 'PX', ttl_ms)
  redis.call('ZADD', KEYS[1], string.format('%.0f', now_ms + ttl_ms), name)
  -- What Redis itself needs for each is about as much as this.
  local size = #output + 2 * #name + 300
  redis.call('HSET', KEYS[2], name, size)
  redis.call('HINCRBY', KEYS[2], 'total', size)
end

local looked = 0
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, 500)) do
  forget_output(name)
  looked = looked + 1
end
while looked < 500 and tonumber(redis.call('HGET', KEYS[2], 'total') or 0) > most do
  local name = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
  if not name then
    redis.call('DEL', KEYS[2])
    break
  end
  forget_output(name)
  looked = looked + 1
end
return looked == 500 and 'more' or 'kept'
