#!lua flags=allow-oom
--- @use announce
--- @use end_entry
--- @use is_live
--- @use is_outstanding
--- @use let_item_go lazily
--- @use place_of
--- @use settle_places
-- Asks for nodes whose workflow names a limit whether they may start: who gets a place holds it until it
-- ends, retries, waits or is held up, whoever runs it; who gets none waits for one outside of the stream.
-- Nobody overtakes those who wait already. Whatever the server can do for all of them is one command: a
-- wide fan waits with the call that opened it.
--
-- KEYS  1 stream
-- ARGV  1 group  2… seven for each node: place, full name of its entry, execution id, node id, attempt record, how
--       often it has waited, by when it counts as having come (ms, with a fraction)
-- RETURNS for each node 'admitted' (also when it holds a place already), 'waiting' (the entry is gone),
--         'stale' (the attempt was taken away) or 'ended' (the node or its execution runs no more; the
--         entry is gone)
local stream, group = KEYS[1], ARGV[1]
local now_ms = steady_ms()
local outcomes, happened = {}, {}

-- Lists by key, in the order of their begin: what goes into one hash or set by one command.
local function gathering()
  local lists, order = {}, {}
  local function add(key, first, second)
    local list = lists[key]
    if not list then
      list = {}
      lists[key], order[#order + 1] = list, key
    end
    list[#list + 1] = first
    list[#list + 1] = second
  end
  return add, lists, order
end
local ask, asked, places = gathering()
local set_place, place_fields, with_places = gathering()
local set_wait, wait_fields, with_waits = gathering()
local set_record, record_fields, with_records = gathering()
local end_own, ended_ids, own_streams = gathering()
local waiting_keys, new_places = {}, {}

local keys = {}
for at = 2, #ARGV, 7 do
  local prefix = 'workflow:' .. ARGV[at + 2]
  keys[#keys + 1] = prefix .. ':status'
  keys[#keys + 1] = prefix .. ':node:' .. ARGV[at + 3]
end
local states = redis.call('MGET', unpack(keys))

for at = 2, #ARGV, 7 do
  local nth, own, entry_id = (at + 5) / 7, place_of(stream, ARGV[at + 1])
  if #redis.call('XRANGE', own, entry_id, entry_id) == 0 then
    outcomes[nth] = 'stale'
  elseif not is_live(states[2 * nth - 1]) or not is_outstanding(states[2 * nth]) then
    end_entry(stream, group, ARGV[at + 1])
    let_item_go(stream, ARGV[at + 2], ARGV[at + 3], states[2 * nth - 1])
    outcomes[nth] = 'ended'
  else
    ask(ARGV[at], at)
  end
end

local function wait_for(place, at, member, waiters)
  local prefix, node_id, record = 'workflow:' .. ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local own, entry_id = place_of(stream, ARGV[at + 1])
  end_own(own, entry_id)
  waiting_keys[#waiting_keys + 1] = prefix .. ':node:' .. node_id
  waiting_keys[#waiting_keys + 1] = 'WAITING'
  set_record(prefix .. ':attempts', node_id, record)
  set_place(prefix .. ':places', node_id, place)
  set_wait(prefix .. ':waits', node_id, string.format('%s slot %.0f - %s', ARGV[at + 5], now_ms, place))
  waiters[#waiters + 1] = ARGV[at + 6]
  waiters[#waiters + 1] = member
  happened[#happened + 1] = 'node.waiting'
  happened[#happened + 1] = ARGV[at + 2] .. ' ' .. node_id .. ' ' .. record .. '\n'
    .. cjson.encode({ waits_for = 'slot', limit = place })
end

for _, place in ipairs(places) do
  local limit, key = limit_rules(place), 'flowd:limit:' .. place
  local held, waiting = count_members(key), count_members(key .. ':waiters')
  local due_ms = limit.interval_ms and due_start(place)
  if held == 0 and waiting == 0 then
    new_places[#new_places + 1] = 0
    new_places[#new_places + 1] = place
  end
  local members, holds, waiters = {}, {}, {}
  for nth, at in ipairs(asked[place]) do
    members[nth] = ARGV[at + 2] .. ' ' .. ARGV[at + 3]
  end
  local scores = held > 0 and redis.call('ZMSCORE', key, unpack(members)) or {}
  for nth, at in ipairs(asked[place]) do
    local member = members[nth]
    local is_holder = scores[nth] or holds[member]
    local is_free = waiting == 0 and held < limit.max and not (due_ms and due_ms - limit.ahead_ms > now_ms)
    if is_holder or is_free then
      -- A holder that asks again is one whose worker is gone: its call may be made a second time.
      if limit.interval_ms then
        due_ms = count_start(place, limit, now_ms, math.max(due_ms or now_ms, now_ms))
      end
      if not is_holder then
        redis.call('ZADD', key, now_ms, member)
        set_place('workflow:' .. ARGV[at + 2] .. ':places', ARGV[at + 3], place)
        holds[member] = true
        held = held + 1
      end
      outcomes[(at + 5) / 7] = 'admitted'
    else
      if waiting == 0 and held < limit.max then
        plan_settling(place, due_ms - limit.ahead_ms)
      end
      wait_for(place, at, member, waiters)
      waiting = waiting + 1
      outcomes[(at + 5) / 7] = 'waiting'
    end
  end
  if waiters[1] then
    redis.call('ZADD', key .. ':waiters', 'NX', unpack(waiters))
  end
end

for _, own in ipairs(own_streams) do
  redis.call('XACK', own, group, unpack(ended_ids[own]))
  redis.call('XDEL', own, unpack(ended_ids[own]))
end
if new_places[1] then
  redis.pcall('ZADD', 'flowd:limits:places', unpack(new_places))
end
if waiting_keys[1] then
  redis.call('MSET', unpack(waiting_keys))
end
for _, each in ipairs({ { with_records, record_fields }, { with_places, place_fields }, { with_waits, wait_fields } }) do
  for _, hash in ipairs(each[1]) do
    redis.pcall('HSET', hash, unpack(each[2][hash]))
  end
end
announce(happened)
return outcomes
