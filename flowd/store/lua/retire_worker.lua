#!lua flags=allow-oom
-- Forgets a worker that holds nothing any more. Deleting a consumer destroys what is pending under
-- its name, so one that still holds an entry stays.
--
-- KEYS  1 leases (hash)  2 workers (hash)  3… the streams of all queues
-- ARGV  1 group  2 consumer
-- RETURNS 'retired' or 'holding'
for at = 3, #KEYS do
  if #redis.call('XPENDING', KEYS[at], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then
    return 'holding'
  end
end
for at = 3, #KEYS do
  redis.call('XGROUP', 'DELCONSUMER', KEYS[at], ARGV[1], ARGV[2])
end
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[2])
return 'retired'
