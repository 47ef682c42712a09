-- Notes all at once what these executions have come to, of whose end nothing follows here: COMPLETED. Their status is
-- written by whoever calls this. A set that is damaged stops nobody: the scheduler sets it aside.
local function end_plainly(active, ended, now_ms)
  local finished, completed = {}, {}
  for at, execution_id in ipairs(ended) do
    finished[2 * at - 1], finished[2 * at] = now_ms, execution_id
    completed[2 * at - 1], completed[2 * at] = 0, execution_id
    redis.pcall('HSET', 'workflow:' .. execution_id .. ':run', 'finished_ms', now_ms)
  end
  redis.pcall('SREM', active, unpack(ended))
  redis.pcall('ZADD', 'flowd:finished', unpack(finished))
  redis.pcall('ZADD', 'flowd:status:COMPLETED', unpack(completed))
  redis.pcall('HINCRBY', 'flowd:metrics', 'executions COMPLETED', #ended)
end
