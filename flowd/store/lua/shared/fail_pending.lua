--- @use arrive_failed
-- Fails, of ARGV[first…], the nodes that are still PENDING; how many that were. Nodes downstream of
-- a failure can be nothing but PENDING or FAILED already, by another failure above them. Each is an id
-- and behind it the dependents that look at what arrives, as arrive_failed takes them; ` *` where those
-- are left to advance_node.
local function fail_pending(stream, continuations, execution_id, first, output, plan, status, now_ms)
  local prefix = 'workflow:' .. execution_id .. ':node:'
  local failed = 0
  for at = first, #ARGV do
    local id, dependents = ARGV[at], ''
    local space = string.find(id, ' ', 1, true)
    if space then
      id, dependents = string.sub(id, 1, space - 1), string.sub(id, space)
    end
    local node = prefix .. id
    if redis.pcall('GET', node) == 'PENDING' then
      redis.call('MSET', node, 'FAILED', node .. ':output', output)
      failed = failed + 1
      if dependents == ' *' then
        redis.pcall('ZADD', continuations, now_ms, 'look ' .. execution_id .. ' ' .. id)
      elseif dependents ~= '' then
        arrive_failed(stream, execution_id, dependents, plan, status)
      end
    end
  end
  return failed
end
