-- Fails, of ARGV[first…], the nodes that are still PENDING; how many that were. Nodes downstream of
-- a failure can be nothing but PENDING or FAILED already, by another failure above them.
local function fail_pending(execution_id, first, output)
  local prefix = 'workflow:' .. execution_id .. ':node:'
  local failed = 0
  for at = first, #ARGV do
    local node = prefix .. ARGV[at]
    if redis.pcall('GET', node) == 'PENDING' then
      redis.call('MSET', node, 'FAILED', node .. ':output', output)
      failed = failed + 1
    end
  end
  return failed
end
