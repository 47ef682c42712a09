#!lua flags=allow-oom
--- @use server_ms
-- Puts off a schedule whose execution could not be made: it is tried again, and says why.
--
-- KEYS  1 schedule (hash)  2 due (zset)
-- ARGV  1 name  2 revision  3 for how many ms  4 why
-- RETURNS 'postponed', or 'changed' when it was changed meanwhile
local revision = redis.pcall('HGET', KEYS[1], 'revision')
if not revision then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 'changed'
elseif revision ~= ARGV[2] and type(revision) ~= 'table' then
  return 'changed'
end
redis.call('ZADD', KEYS[2], string.format('%.0f', server_ms() + ARGV[3]), ARGV[1])
redis.pcall('HSET', KEYS[1], 'error', ARGV[4])
redis.pcall('HINCRBY', KEYS[1], 'failures', 1)
return 'postponed'
