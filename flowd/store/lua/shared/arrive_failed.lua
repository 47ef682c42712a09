--- @use arrivals
--- @use open_node
-- Tells dependents that look at what arrives of a failure above them, and opens those that have all.
-- `dependents` is text: ` id/dependencies` for each.
local function arrive_failed(stream, execution_id, dependents, plan, status)
  local run = 'workflow:' .. execution_id .. ':run'
  for id, needed in string.gmatch(dependents, ' ([^ /]+)/(%d+)') do
    local arrived = redis.pcall('HINCRBY', run, 'arrived:' .. id, FAILED)
    if type(arrived) == 'number' and arrived % ARRIVALS == tonumber(needed) then
      open_node(stream, execution_id, id, plan, status)
    end
  end
end
