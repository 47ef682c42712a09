-- Keeps the record of an attempt that is over, and what it failed of, beside the newest. The last 20.
local function keep_attempt(execution_id, node_id, record, error)
  local attempt = type(record) == 'string' and tonumber(string.match(record, '^%d+'))
  if not attempt then
    return
  end
  local history = 'workflow:' .. execution_id .. ':history'
  redis.pcall('HSET', history, node_id .. ' ' .. attempt, record .. '\n' .. error)
  if attempt > 19 then
    redis.pcall('HDEL', history, node_id .. ' ' .. attempt - 19)
  end
end
