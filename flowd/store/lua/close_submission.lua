#!lua flags=allow-oom
-- Closes a submission that broke off: it cannot go through any more, not even by a process that was
-- only slow, so what it has staged may be removed.
--
-- KEYS  1 status (string)  2 continuations (zset)
-- ARGV  1 execution id
-- RETURNS 'closed', or 'exists' when the submission went through
redis.call('ZREM', KEYS[2], 'submit ' .. ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 'exists'
end
redis.call('ZADD', KEYS[2], 0, 'discard ' .. ARGV[1])
return 'closed'
