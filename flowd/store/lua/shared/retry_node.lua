--- @use announce
--- @use end_entry
--- @use failure_text
--- @use is_live
--- @use is_outstanding
--- @use keep_report
--- @use let_item_go lazily
--- @use dating_ms
-- Takes a node whose attempt has failed out of the stream until its next one is due: the body of
-- retry_node and retry_item, which say what KEYS and ARGV hold. The outcome, and the state of its
-- execution.
local function retry_node()
  local execution_id, node_id = ARGV[4], ARGV[5]
  local prefix, member = 'workflow:' .. execution_id, execution_id .. ' ' .. node_id
  if not end_entry(KEYS[1], ARGV[1], ARGV[3]) then
    return 'stale'
  end
  local node = prefix .. ':node:' .. node_id
  local status, state = unpack(redis.call('MGET', prefix .. ':status', node))
  if not is_live(status) or not is_outstanding(state) then
    let_item_go(KEYS[1], execution_id, node_id, status)
    return 'ended'
  end
  redis.call('SET', node, 'RETRYING')
  redis.pcall('HSET', prefix .. ':attempts', node_id, ARGV[6])
  local run = prefix .. ':run'
  redis.pcall('HSET', run, 'failures:' .. node_id, ARGV[7], 'error:' .. node_id, ARGV[8])
  keep_report(run, node_id, ARGV[9])
  redis.pcall('ZADD', KEYS[2], dating_ms() + ARGV[2], member)
  if redis.pcall('ZRANGE', KEYS[2], 0, 0)[1] == member then
    -- Whoever sleeps until the next one is due has to look again.
    redis.call('DEL', KEYS[3])
    redis.call('LPUSH', KEYS[3], member)
  end
  announce({ 'node.retrying',
    execution_id .. ' ' .. node_id .. ' ' .. ARGV[6] .. failure_text(run, ARGV[10]) })
  return 'retrying', status
end
