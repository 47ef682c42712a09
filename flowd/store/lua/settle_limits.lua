#!lua flags=allow-oom
--- @use is_live
--- @use is_outstanding
--- @use settle_places
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

-- Those of one execution together.
local ended, ids = {}, {}
for at = 1, #ARGV, 2 do
  local execution_id = ARGV[at]
  if not (is_live(states[at]) and is_outstanding(states[at + 1])) then
    if not ended[execution_id] then
      ended[execution_id], ids[#ids + 1] = { node_ids = {}, may_wait = {} }, execution_id
    end
    local own = ended[execution_id]
    own.node_ids[#own.node_ids + 1] = ARGV[at + 1]
    own.may_wait[#own.node_ids] = is_live(states[at]) and states[at + 1] == 'WAITING'
  end
end

local by_place, order, released = {}, {}, 0
for _, execution_id in ipairs(ids) do
  local places, own, leaving = 'workflow:' .. execution_id .. ':places', ended[execution_id], {}
  local found = redis.pcall('HMGET', places, unpack(own.node_ids))
  for nth, node_id in ipairs(own.node_ids) do
    local place, member = found[nth], execution_id .. ' ' .. node_id
    -- One that waits for a place keeps its turn.
    if place and not (own.may_wait[nth] and redis.pcall('ZSCORE', 'flowd:limit:' .. place .. ':waiters', member)) then
      if not by_place[place] then
        by_place[place], order[#order + 1] = {}, place
      end
      table.insert(by_place[place], member)
      leaving[#leaving + 1] = node_id
    end
  end
  if leaving[1] then
    redis.call('HDEL', places, unpack(leaving))
  end
end
for _, place in ipairs(order) do
  local members, key = by_place[place], 'flowd:limit:' .. place
  local removed = redis.pcall('ZREM', key, unpack(members))
  removed = type(removed) == 'number' and removed or 0
  if removed < #members then
    redis.pcall('ZREM', key .. ':waiters', unpack(members))
  end
  released = released + removed
end
settle_places(KEYS[1], order, 500)
return released
