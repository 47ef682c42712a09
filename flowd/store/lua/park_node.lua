#!lua flags=allow-oom
--- @use end_entry
--- @use park_node
--- @use release_place
-- Takes a node that has not started out of the stream: its execution is paused. It comes back as the
-- attempt after the one that was in the stream.
--
-- KEYS  1 stream  2 status (string)  3 node (string)  4 attempts (hash)
-- ARGV  1 group  2 name of its entry  3 execution id  4 node id  5 attempt record  6 deaths of its workers
-- RETURNS 'parked', 'stale' (the attempt was taken away) or 'moved' (the execution is not paused any
--         more, or the node does not wait); after the last the entry is as it was
if redis.pcall('GET', KEYS[2]) ~= 'PAUSED' or redis.pcall('GET', KEYS[3]) ~= 'QUEUED' then
  return 'moved'
end
if not end_entry(KEYS[1], ARGV[1], ARGV[2]) then
  return 'stale'
end
redis.pcall('HSET', KEYS[4], ARGV[4], ARGV[5])
park_node(ARGV[3], ARGV[4], ARGV[6])
redis.call('SET', KEYS[3], 'PENDING')
release_place(KEYS[1], ARGV[3], ARGV[4])
return 'parked'
