-- Gives an execution a place of its key that is free.
local function take_place(execution_id, place)
  redis.call('ZADD', 'flowd:concurrency:holders', 0, string.match(place, '^%x+') .. ' ' .. execution_id)
  redis.call('HSET', 'workflow:' .. execution_id .. ':run', 'place', place)
end
