-- Whether an execution, or one above it, holds a place of this key.
local function is_below_holder(execution_id, place)
  local digest = string.match(place, '^%x+')
  for _ = 1, 100 do
    if redis.pcall('ZSCORE', 'flowd:concurrency:holders', digest .. ' ' .. execution_id) then
      return true
    end
    local parent = redis.pcall('HGET', 'workflow:' .. execution_id .. ':run', 'parent')
    execution_id = type(parent) == 'string' and string.match(parent, '^%x+')
    if not execution_id then
      return false
    end
  end
  return false
end
