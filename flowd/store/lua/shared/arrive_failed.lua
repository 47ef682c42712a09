--- @use arrivals
--- @use open_node
--- @use place_of
-- Tells dependents that look at what arrives of a failure above them, and opens those that have all.
-- `dependents` is text: the full name of each, `/` and how many it waits for, with a space in front.
local function arrive_failed(stream, execution_id, dependents, plan, status)
  local run = 'workflow:' .. execution_id .. ':run'
  for called, needed in string.gmatch(dependents, ' (%S+)/(%d+)') do
    local _, node_id = place_of(stream, called)
    local arrived = redis.pcall('HINCRBY', run, 'arrived:' .. node_id, FAILED)
    if type(arrived) == 'number' and arrived % ARRIVALS == tonumber(needed) then
      open_node(stream, execution_id, called, plan, status)
    end
  end
end
