-- The executions of a schedule that have not ended, some at least, and whether there are any. Who has
-- ended, or is gone, gives its place back here where it did not itself.
local function schedule_holders(key)
  local live = {}
  for _, execution_id in ipairs(redis.call('SSCAN', key, 0, 'COUNT', 200)[2]) do
    local status = redis.pcall('GET', 'workflow:' .. execution_id .. ':status')
    if status == 'PENDING' or status == 'RUNNING' or status == 'PAUSED' or status == 'CANCELLING' then
      live[#live + 1] = execution_id
    else
      redis.call('SREM', key, execution_id)
    end
  end
  return live, redis.call('SCARD', key) > 0
end
