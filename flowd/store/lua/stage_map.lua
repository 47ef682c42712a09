#!lua
--- @use refuse_staging
-- Stores what a rerun takes over of a node with `map`: its list and how far it came, or behind that which
-- of its items run again. In one step with the look whether the execution is still to be made: of one that
-- runs, by the same request sent again, nothing is to be set back.
--
-- KEYS  1 status (string)  2 continuations (zset)  3 map of the source (hash)  4 items of that (hash)
--       5 map (hash)  6 items (hash)  7 items that wait for a place (list)
-- ARGV  1 execution id  2 how many items are done, or empty to take all over as it is  3 the bytes of their
--       outputs  4… indexes of the items that run
-- RETURNS 'staged', or what refuse_staging says against it
local refusal = refuse_staging(KEYS[1], KEYS[2], ARGV[1])
if refusal then
  return refusal
elseif ARGV[2] == '' then
  redis.call('COPY', KEYS[3], KEYS[5], 'REPLACE')
  redis.call('COPY', KEYS[4], KEYS[6], 'REPLACE')
  return 'staged'
end
redis.call('HSET', KEYS[5], 'ended', ARGV[2], 'failed', 0, 'bytes', ARGV[3])
redis.call('HDEL', KEYS[5], 'failure', 'stopped')
redis.call('DEL', KEYS[7])
for at = 4, #ARGV, 1000 do
  redis.call('RPUSH', KEYS[7], unpack(ARGV, at, math.min(at + 999, #ARGV)))
end
return 'staged'
