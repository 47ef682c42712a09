#!lua flags=allow-oom
--- @use announce
--- @use is_live
--- @use is_outstanding
--- @use is_owner
--- @use end_entry lazily
--- @use let_item_go lazily
-- Records who runs these nodes: state RUNNING, attempt and owner. A node that ends before its
-- worker next speaks to Redis never passes through here; one that runs on is claimed again now and
-- then, which tells its worker when it is not to run any more.
--
-- KEYS  1 stream
-- ARGV  1 group  2 consumer  3… four for each node: name of its entry, execution id, node id, attempt record
-- RETURNS for each node 'claimed' (also when it is said again), 'stale' (it is no longer this
--         worker's to run) or 'ended' (the node or its execution runs no more; the entry is gone)
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local outcomes, happened = {}, {}
for at = 3, #ARGV, 4 do
  local prefix = 'workflow:' .. ARGV[at + 1]
  local node = prefix .. ':node:' .. ARGV[at + 2]
  local outcome = 'stale'
  if is_owner(stream, group, ARGV[at], consumer) then
    local status, state = unpack(redis.call('MGET', prefix .. ':status', node))
    if is_live(status) and is_outstanding(state) then
      -- Said again it writes nothing: with durability = "always" each write waits for the disk.
      if state == 'QUEUED' then
        redis.call('SET', node, 'RUNNING')
        redis.pcall('HSET', prefix .. ':attempts', ARGV[at + 2], ARGV[at + 3])
        happened[#happened + 1] = 'node.started'
        happened[#happened + 1] = ARGV[at + 1] .. ' ' .. ARGV[at + 2] .. ' ' .. ARGV[at + 3]
      end
      outcome = 'claimed'
    else
      end_entry(stream, group, ARGV[at])
      let_item_go(stream, ARGV[at + 1], ARGV[at + 2], status)
      outcome = 'ended'
    end
  end
  outcomes[#outcomes + 1] = outcome
end
announce(happened)
return outcomes
