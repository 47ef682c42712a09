#!lua flags=allow-oom
--- @use announce
--- @use end_entry
--- @use failure_text
--- @use is_live
--- @use is_outstanding
--- @use keep_report
--- @use steady_ms
-- Takes a node whose attempt has failed out of the stream until its next one is due.
--
-- KEYS  1 stream  2 retries (zset)  3 bell (list)
-- ARGV  1 group  2 pause, ms  3 entry id  4 execution id  5 node id  6 attempt record
--       7 number of its attempts that have failed  8 error  9 report (JSON) of the node, or empty
--       10 its error, cut for an event
-- RETURNS 'retrying', 'stale' or 'ended', as complete_nodes
local execution_id, node_id = ARGV[4], ARGV[5]
local prefix, member = 'workflow:' .. execution_id, execution_id .. ' ' .. node_id
if not end_entry(KEYS[1], ARGV[1], ARGV[3]) then
  return 'stale'
end
local node = prefix .. ':node:' .. node_id
local status, state = unpack(redis.call('MGET', prefix .. ':status', node))
if not is_live(status) or not is_outstanding(state) then
  return 'ended'
end
redis.call('SET', node, 'RETRYING')
redis.pcall('HSET', prefix .. ':attempts', node_id, ARGV[6])
local run = prefix .. ':run'
redis.pcall('HSET', run, 'failures:' .. node_id, ARGV[7], 'error:' .. node_id, ARGV[8])
keep_report(run, node_id, ARGV[9])
redis.pcall('ZADD', KEYS[2], steady_ms() + ARGV[2], member)
if redis.pcall('ZRANGE', KEYS[2], 0, 0)[1] == member then
  -- Whoever sleeps until the next one is due has to look again.
  redis.call('DEL', KEYS[3])
  redis.call('LPUSH', KEYS[3], member)
end
announce({ 'node.retrying',
  execution_id .. ' ' .. node_id .. ' ' .. ARGV[6] .. failure_text(run, ARGV[10]) })
return 'retrying'
