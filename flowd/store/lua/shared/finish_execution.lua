-- Ends an execution none of whose nodes is left to run, and notes when, for its retention.
local function finish_execution(active, execution_id, now_ms)
  local prefix = 'workflow:' .. execution_id
  local failed = redis.pcall('HGET', prefix .. ':run', 'failed')
  redis.call('SET', prefix .. ':status', failed == '1' and 'FAILED' or 'COMPLETED')
  redis.call('SREM', active, execution_id)
  redis.call('ZADD', 'flowd:finished', now_ms, execution_id)
  redis.pcall('HSET', prefix .. ':run', 'finished_ms', now_ms)
end
