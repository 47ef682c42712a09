#!lua flags=allow-oom
--- @use end_entry
-- Takes a node that has not started out of the stream: its execution is paused.
--
-- KEYS  1 stream  2 status (string)  3 node (string)  4 parked (hash)
-- ARGV  1 group  2 entry id  3 node id  4 deaths of its workers
-- RETURNS 'parked', or 'moved' when the execution is not paused any more; the entry is then as it was
if redis.pcall('GET', KEYS[2]) ~= 'PAUSED' then
  return 'moved'
end
if end_entry(KEYS[1], ARGV[1], ARGV[2]) and redis.call('GET', KEYS[3]) == 'QUEUED' then
  redis.call('HSET', KEYS[4], ARGV[3], ARGV[4])
  redis.call('SET', KEYS[3], 'PENDING')
end
return 'parked'
