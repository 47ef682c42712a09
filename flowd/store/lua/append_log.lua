#!lua
--- @use steady_ms
-- Adds to what an attempt of a node has said. Refused when Redis is full, and when the logs of its execution
-- have all they may have. Sent again after a lost reply, it does nothing.
--
-- KEYS  1 logs (zset)  2 run (hash)  3 log of the attempt (stream)
-- ARGV  1 execution id  2 node id  3 attempt  4 how many attempts of a node keep theirs  5 most bytes of all
--       logs of the execution  6 bytes by which this one grows  7 lines of it that are gone so far  8 lines
--       in this call  9 number of entries to forget, then their numbers, then of each new entry its number
--       and its lines
-- RETURNS 'stored', 'full' (nothing written but how many lines that were), or 'unknown' (the execution is gone)
local logs, run, log = KEYS[1], KEYS[2], KEYS[3]
local execution_id, node_id, attempt = ARGV[1], ARGV[2], tonumber(ARGV[3])
local prefix, forgotten = 'workflow:' .. execution_id, tonumber(ARGV[9])
if redis.call('EXISTS', prefix .. ':status') == 0 then
  return 'unknown'
end
local bytes = tonumber(redis.pcall('HGET', run, 'log_bytes') or 0)
if bytes and bytes > tonumber(ARGV[5]) then
  redis.pcall('HINCRBY', run, 'log_dropped', ARGV[8])
  return 'full'
end
local is_new = false
for at = 10 + forgotten, #ARGV, 2 do
  local added = redis.pcall('XADD', log, ARGV[at] .. '-0', 'lines', ARGV[at + 1], 'dropped', ARGV[7])
  is_new = is_new or type(added) == 'string'
end
if not is_new then
  return 'stored'
end
for at = 10, 9 + forgotten do
  redis.pcall('XDEL', log, ARGV[at] .. '-0')
end
redis.pcall('HINCRBY', run, 'log_bytes', ARGV[6])
redis.pcall('ZADD', logs, steady_ms(), node_id .. ' ' .. attempt)
-- Attempts that said nothing have none to take away, so a few further ones are looked for.
local oldest = attempt - ARGV[4]
for former = oldest, math.max(oldest - ARGV[4], 1), -1 do
  if redis.pcall('ZREM', logs, node_id .. ' ' .. former) == 1 then
    local key = prefix .. ':log:' .. node_id .. ':' .. former
    local size = 0
    for _, entry in ipairs(redis.pcall('XRANGE', key, '-', '+')) do
      size = size + #entry[2][2]
    end
    redis.call('DEL', key)
    redis.pcall('HINCRBY', run, 'log_bytes', 0 - size)
  end
end
return 'stored'
