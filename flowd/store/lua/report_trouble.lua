#!lua flags=allow-oom
-- Writes down what a scheduler cannot do, for those who look. All of it is forgotten when nobody has
-- reported anything for a while; of a storm of troubles the first are kept.
--
-- KEYS  1 troubles (hash)
-- ARGV  1 what  2 why  3 how long it counts, s  4 the most to keep
-- RETURNS 'reported', or 'full'
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 'full'
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 'reported'
