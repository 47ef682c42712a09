#!lua flags=allow-oom
--- @use announce
--- @use is_live
--- @use is_outstanding
--- @use is_owner
--- @use keep_attempts
--- @use let_item_go lazily
--- @use place_of
--- @use requeue_node
-- Takes an entry away from a worker that is dead or draining and gives its node to the others as
-- the next attempt: a new entry, so that whatever the old worker still says is stale.
--
-- KEYS  1 stream of the default queue
-- ARGV  1 group  2 consumer that holds the entry (empty: no one, it was delivered to a group that is
--       gone)  3 name of the entry  4 '1' when the consumer died  5 the most deaths a node may cause
-- RETURNS 'requeued' | 'gone' (not that consumer's) | 'ended' (nothing left to run) |
--         'garbage' (flowd wrote no such entry) | 'poison' (this death was one too many), all but
--         'gone' followed by the entry's fields; after the last two the entry is left to the caller
local function is_count(text)
  return #text <= 9 and string.match(text, '^%d+$')
end
local group, consumer = ARGV[1], ARGV[2]
local stream, entry_id = place_of(KEYS[1], ARGV[3])
if consumer ~= '' then
  if not is_owner(KEYS[1], group, ARGV[3], consumer) then
    return { 'gone' }
  end
elseif #redis.call('XPENDING', stream, group, entry_id, entry_id, 1) == 1 then
  return { 'gone' }
end
local found = redis.call('XRANGE', stream, entry_id, entry_id)[1]
if not found then
  redis.call('XACK', stream, group, entry_id)
  return { 'gone' }
end
local fields = {}
for at = 1, #found[2], 2 do
  fields[found[2][at]] = found[2][at + 1]
end
local execution_id, node_id = fields.execution_id or '', fields.node_id or ''
local attempt, deaths = fields.attempt or '1', fields.deaths or '0'
local failures, waits = fields.failures or '0', fields.waits
if #execution_id ~= 24 or string.find(execution_id, '[^0-9a-f]') or node_id == ''
    or not is_count(attempt) or not is_count(deaths) or not is_count(failures)
    or waits and not is_count(waits) then
  return { 'garbage', found[2] }
end
local prefix = 'workflow:' .. execution_id
local status, state = unpack(redis.call('MGET', prefix .. ':status', prefix .. ':node:' .. node_id))
local ended = not is_live(status) or not is_outstanding(state)

-- Two deaths in company prove nothing. From then on the node runs in a process of its own, and only a
-- death after its start was recorded counts against it.
deaths = tonumber(deaths)
if ARGV[4] == '1' and (deaths < 2 or state == 'RUNNING') then
  deaths = deaths + 1
end
if not ended and deaths >= tonumber(ARGV[5]) then
  return { 'poison', found[2] }
end
redis.call('XACK', stream, group, entry_id)
redis.call('XDEL', stream, entry_id)
if ended then
  let_item_go(KEYS[1], execution_id, node_id, status)
  return { 'ended', found[2] }
end
-- What was recorded of it may be of the attempt before.
local given_up = redis.pcall('HGET', prefix .. ':attempts', node_id)
if type(given_up) ~= 'string' or string.match(given_up, '^%d+') ~= attempt then
  local holder = consumer ~= '' and consumer or '-'
  given_up = attempt .. ' ' .. string.match(entry_id, '%d+') .. ' - - ' .. holder
end
local cause = ARGV[4] == '1' and 'its worker died' or 'its worker gave it back'
keep_attempts(execution_id, { { node_id, given_up, cause } })
local record = requeue_node(stream, execution_id, node_id, attempt + 1, fields.plan or '', deaths,
  failures, waits)
announce({ 'node.requeued', execution_id .. ' ' .. node_id .. ' ' .. record })
return { 'requeued', found[2] }
