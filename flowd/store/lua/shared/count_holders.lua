-- How many executions have a place under this key of a workflow's `concurrency`; nil where what says so was
-- damaged.
local function count_holders(digest)
  local count =
    redis.pcall('ZLEXCOUNT', 'flowd:concurrency:holders', '[' .. digest .. ' ', '(' .. digest .. '!')
  return type(count) == 'number' and count or nil
end
