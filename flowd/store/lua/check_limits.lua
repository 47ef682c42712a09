#!lua flags=allow-oom
--- @use is_live
--- @use is_outstanding
--- @use settle_places
-- Looks at the places behind one, in their order: who holds one and does not run, or waits for one and
-- does not wait, is struck off, as far as the 500 oldest of each go; what is free goes to who waits.
--
-- KEYS  1 stream
-- ARGV  1 the place behind which to begin, or empty  2 the most places
-- RETURNS the last place looked at, or empty when there are no more; how many were struck off
local struck = 0

local function strike_off(key, place, is_right)
  local members = redis.call('ZRANGE', key, 0, 499)
  local keys = {}
  for at, member in ipairs(members) do
    local execution_id, node_id = string.match(member, '^(%x+) (.+)$')
    local prefix = 'workflow:' .. (execution_id or '')
    keys[2 * at - 1], keys[2 * at] = prefix .. ':status', prefix .. ':node:' .. (node_id or '')
  end
  local states = keys[1] and redis.call('MGET', unpack(keys)) or {}
  for at, member in ipairs(members) do
    if not is_live(states[2 * at - 1]) or not is_right(states[2 * at]) then
      struck = struck + redis.call('ZREM', key, member)
      local execution_id, node_id = string.match(member, '^(%x+) (.+)$')
      local places = 'workflow:' .. (execution_id or '') .. ':places'
      if redis.pcall('HGET', places, node_id or '') == place then
        redis.call('HDEL', places, node_id)
      end
    end
  end
end

local after = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local places = redis.call('ZRANGEBYLEX', 'flowd:limits:places', after, '+', 'LIMIT', 0, ARGV[2])
for _, place in ipairs(places) do
  local holders = 'flowd:limit:' .. place
  strike_off(holders, place, is_outstanding)
  strike_off(holders .. ':waiters', place, function(state) return state == 'WAITING' end)
end
settle_places(KEYS[1], places, 500)
return { #places == tonumber(ARGV[2]) and places[#places] or '', struck }
