-- Keeps the records of attempts that are over, and what they failed of, beside the newest: `over` are, of each,
-- its node, the record and the error. The last 20 of a node, and its first, which says when it began.
local function keep_attempts(execution_id, over)
  local history, kept, dropped = 'workflow:' .. execution_id .. ':history', {}, {}
  for _, one in ipairs(over) do
    local node_id, record, error = unpack(one)
    local attempt = type(record) == 'string' and tonumber(string.match(record, '^%d+'))
    if attempt then
      kept[#kept + 1] = node_id .. ' ' .. attempt
      kept[#kept + 1] = record .. '\n' .. error
      dropped[#dropped + 1] = attempt > 20 and node_id .. ' ' .. attempt - 19 or nil
    end
  end
  if kept[1] then
    redis.pcall('HSET', history, unpack(kept))
  end
  if dropped[1] then
    redis.pcall('HDEL', history, unpack(dropped))
  end
end
