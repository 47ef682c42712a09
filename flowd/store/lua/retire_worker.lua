#!lua flags=allow-oom
-- Forgets a worker that holds nothing any more. Deleting a consumer destroys what is pending under
-- its name, so one that still holds an entry stays.
--
-- KEYS  1 stream  2 leases (hash)  3 workers (hash)
-- ARGV  1 group  2 consumer
-- RETURNS 'retired' or 'holding'
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
  return 'holding'
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
return 'retired'
