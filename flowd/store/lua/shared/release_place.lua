--- @use settle_places
-- Takes a node that is not to run now out of the limit it holds or waits for a place of; a place that is
-- free by that goes to whoever waits for it.
local function release_place(stream, execution_id, node_id)
  local places = 'workflow:' .. execution_id .. ':places'
  local place = redis.pcall('HGET', places, node_id)
  if type(place) ~= 'string' then
    return
  end
  local member = execution_id .. ' ' .. node_id
  redis.call('HDEL', places, node_id)
  redis.pcall('ZREM', 'flowd:limit:' .. place .. ':waiters', member)
  redis.pcall('ZREM', 'flowd:limit:' .. place, member)
  settle_places(stream, { place }, 500)
end
