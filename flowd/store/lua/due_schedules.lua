#!lua flags=allow-oom
--- @use server_ms
-- Reads the schedules that are to be looked at now.
--
-- KEYS  1 due (zset), by the server's clock
-- ARGV  1 the most to read
-- RETURNS how many ms it is by the server's clock; how many are left until the next one that is not due,
--         or an empty text when there is none; then of each its name, what it says (JSON), revision, next
--         and queued time (ms), number of failures in a row
local now_ms = server_ms()
local found = { now_ms, '' }
local names = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[1])
for _, name in ipairs(names) do
  local fields = redis.pcall('HMGET', 'flowd:schedule:' .. name, 'said', 'revision', 'next_ms',
    'queued_ms', 'failures')
  found[#found + 1] = name
  for at = 1, 5 do
    found[#found + 1] = fields[at] or ''
  end
end
local first = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if first[2] then
  found[2] = math.ceil(first[2] - now_ms)
end
return found
