#!lua flags=allow-oom
--- @use server_ms
--- @use steady_ms
-- Keeps the clock by which everything waits from going back when the server's is put back. Said by
-- any number of schedulers it is done once: behind the first there is nothing left to add.
--
-- KEYS  1 clock (hash)
-- ARGV  1 what the clock has reached at least, ms, as far as the caller knows  2 the most it may differ
--       from that, ms
-- RETURNS how many ms the clock has reached, and by how many the server's was put back
local now_ms = steady_ms()
local last_ms = string.match(redis.call('HGET', KEYS[1], 'last_ms') or '', '^%d+$')
local reached_ms = math.max(tonumber(last_ms or '0'), tonumber(ARGV[1]) - tonumber(ARGV[2]))
local put_back_ms = math.max(0, reached_ms - now_ms)
now_ms = now_ms + put_back_ms
if put_back_ms > 0 then
  redis.call('HSET', KEYS[1], 'ahead_ms', string.format('%.0f', now_ms - server_ms()))
end
redis.call('HSET', KEYS[1], 'last_ms', string.format('%.0f', now_ms))
return { now_ms, put_back_ms }
