#!lua flags=allow-oom
--- @use is_live
--- @use is_outstanding
--- @use settle_place
-- Has nodes that name a limit, and of which an attempt has ended, give back their places; each goes to
-- whoever waits for it. Stands behind what has ended them, in the same transaction: who is still QUEUED
-- or RUNNING keeps its place.
--
-- KEYS  1 stream
-- ARGV  1… two for each node: execution id, node id
-- RETURNS how many places were given back
local keys = {}
for at = 1, #ARGV, 2 do
  local prefix = 'workflow:' .. ARGV[at]
  keys[at], keys[at + 1] = prefix .. ':status', prefix .. ':node:' .. ARGV[at + 1]
end
local states = redis.call('MGET', unpack(keys))
local by_place, order, released = {}, {}, 0
for at = 1, #ARGV, 2 do
  if not (is_live(states[at]) and is_outstanding(states[at + 1])) then
    local places = 'workflow:' .. ARGV[at] .. ':places'
    local place = redis.pcall('HGET', places, ARGV[at + 1])
    local member, waiters = ARGV[at] .. ' ' .. ARGV[at + 1], 'flowd:limit:' .. (place or '') .. ':waiters'
    -- One that waits for a place keeps its turn.
    local is_waiting = is_live(states[at]) and states[at + 1] == 'WAITING'
      and redis.pcall('ZSCORE', waiters, member)
    if type(place) == 'string' and not is_waiting then
      redis.pcall('ZREM', waiters, member)
      redis.call('HDEL', places, ARGV[at + 1])
      if not by_place[place] then
        by_place[place], order[#order + 1] = {}, place
      end
      local members = by_place[place]
      members[#members + 1] = member
    end
  end
end
for _, place in ipairs(order) do
  local removed = redis.pcall('ZREM', 'flowd:limit:' .. place, unpack(by_place[place]))
  released = released + (type(removed) == 'number' and removed or 0)
  settle_place(KEYS[1], place, 500)
end
return released
