--- @use admit_execution
--- @use announce
--- @use count_holders
--- @use first_waiter
--- @use list_status
--- @use open_roots
--- @use write_all
-- Starts the executions that wait for a place of this key, who has asked first first, as long as one is
-- free; how many. A child starts in the state its parent is in. Who waits no more, or was damaged, is in
-- nobody's way.
local function admit_waiters(stream, active, digest, now_ms)
  local admitted = 0
  for _ = 1, 20 do
    local waiter = first_waiter(digest)
    local execution_id = waiter and string.match(waiter, '%x+$')
    if not waiter then
      return admitted
    end
    local prefix = 'workflow:' .. execution_id
    local status = redis.pcall('GET', prefix .. ':status')
    local concurrency, waiting, plan, roots, parent, queues = unpack(redis.pcall('HMGET', prefix .. ':run',
      'concurrency', 'waiting', 'plan', 'roots', 'parent', 'queues'))
    local most = type(concurrency) == 'string' and tonumber(string.match(concurrency, '^%d+'))
    local group = type(waiting) == 'string' and string.match(waiting, '^%d+ (.*)$')
    local parent_id = type(parent) == 'string' and string.match(parent, '^%x+')
    local state = parent_id and redis.pcall('GET', 'workflow:' .. parent_id .. ':status') or 'RUNNING'
    local is_whole = status == 'PENDING' and most and group and plan and roots
    if is_whole and (count_holders(digest) or most) >= most then
      return admitted
    end
    -- One whose parent ends is cancelled with that.
    local starts = is_whole and (state == 'RUNNING' or state == 'PAUSED')
    if starts then
      local is_well, damage =
        pcall(admit_execution, active, stream, group, execution_id, queues)
      if not is_well or damage then
        return admitted
      end
    end
    redis.call('ZREM', 'flowd:concurrency:waiters', waiter)
    if starts then
      admitted = admitted + 1
      redis.call('ZADD', 'flowd:concurrency:holders', 0, digest .. ' ' .. execution_id)
      redis.call('HDEL', prefix .. ':run', 'waiting')
      redis.call('HSET', prefix .. ':run', 'triggered_ms', now_ms)
      list_status(execution_id, 'PENDING', state)
      announce({ 'execution.triggered', execution_id })
      announce(state == 'PAUSED' and { 'execution.paused', execution_id } or {})
      local writes = { prefix .. ':status', state }
      open_roots(stream, 'flowd:continuations', execution_id, plan, roots, state, now_ms, writes)
      write_all(writes)
    end
  end
  return admitted
end
