#!lua flags=allow-oom
-- Renews a worker's lease. Only a lease that still stands can be renewed: one that was given away
-- must not come back to life with its old owner.
--
-- KEYS  1 leases (hash)
-- ARGV  1 consumer
-- RETURNS 'renewed' or 'lost'
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 'lost'
end
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
return 'renewed'
