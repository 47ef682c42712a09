#!lua
--- @use is_live
--- @use is_outstanding
-- Stores a slice of the list of a node with `map`, in the order of the list: expand_node begins when it
-- is whole. A slice that is there already changes nothing, so that any attempt may begin at the first.
--
-- KEYS  1 status (string)  2 node (string)  3 map (hash)  4 its items (hash)  5 its todo (list)
-- ARGV  1 index of the first  2… the items (JSON)
-- RETURNS 'staged', 'whole' when the list is stored already, or 'ended' when the node runs no more
local first = tonumber(ARGV[1])
if redis.call('EXISTS', KEYS[3]) == 1 then
  return 'whole'
end
local status, state = unpack(redis.call('MGET', KEYS[1], KEYS[2]))
if not is_live(status) or not is_outstanding(state) then
  return 'ended'
end
if redis.call('LLEN', KEYS[5]) == first then
  local fields, indexes = {}, {}
  for at = 2, #ARGV do
    local index = first + at - 2
    fields[2 * at - 3], fields[2 * at - 2] = index, ARGV[at]
    indexes[at - 1] = index
  end
  redis.call('HSET', KEYS[4], unpack(fields))
  redis.call('RPUSH', KEYS[5], unpack(indexes))
end
return 'staged'
