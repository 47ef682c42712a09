#!lua flags=allow-oom
--- @use walk_limit
-- Makes, changes or lifts a limit; whom it holds back no more starts at once.
--
-- KEYS  1 limits (hash)  2 stream
-- ARGV  1 name  2 most at once  3 most a second  4 burst ('-' where it is not limited), or no more than
--       the name, to lift it
-- RETURNS 'made', 'changed', 'unchanged' or 'lifted', or 'unknown' when there is none to lift
local before = redis.call('HGET', KEYS[1], ARGV[1])
local outcome
if #ARGV == 1 then
  if not before then
    return 'unknown'
  end
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.pcall('HDEL', 'flowd:sets', 'limit ' .. ARGV[1])
  outcome = 'lifted'
else
  local said = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]
  if said == before then
    return 'unchanged'
  end
  redis.call('HSET', KEYS[1], ARGV[1], said)
  outcome = before and 'changed' or 'made'
end
walk_limit(KEYS[2], ARGV[1], '', 500)
return outcome
