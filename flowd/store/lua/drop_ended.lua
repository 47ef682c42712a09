#!lua flags=allow-oom
--- @use end_entry
--- @use is_live
--- @use is_outstanding
--- @use let_item_go lazily
--- @use place_of
-- Takes entries that nobody has been given out of a queue that nobody reads, where their nodes or their
-- executions run no more: no worker will meet them there.
--
-- KEYS  1 stream of the default queue
-- ARGV  1 group  2… three for each entry: its name, execution id, node id
-- RETURNS how many it has taken out
local stream, group = KEYS[1], ARGV[1]
local dropped = 0
for at = 2, #ARGV, 3 do
  local prefix = 'workflow:' .. ARGV[at + 1]
  local status, state = unpack(redis.call('MGET', prefix .. ':status', prefix .. ':node:' .. ARGV[at + 2]))
  if not is_live(status) or not is_outstanding(state) then
    local own, entry_id = place_of(stream, ARGV[at])
    local pending = redis.pcall('XPENDING', own, group, entry_id, entry_id, 1)
    if not pending.err and #pending == 0 and end_entry(stream, group, ARGV[at]) then
      let_item_go(stream, ARGV[at + 1], ARGV[at + 2], status)
      dropped = dropped + 1
    end
  end
end
return dropped
