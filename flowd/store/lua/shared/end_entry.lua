--- @use place_of
-- Takes an entry, given by its full name, out of its stream for good. True when it was still there.
--
-- This is the fence. An entry is delivered once in its life: giving its node to another worker
-- deletes the entry and appends a new one, so its name stands for one attempt by one owner, and
-- an entry that is no longer in its stream belongs to an attempt that has been taken away. The queue is
-- part of the name: two streams give equal ids.
local function end_entry(stream, group, name)
  local own, entry_id = place_of(stream, name)
  redis.call('XACK', own, group, entry_id)
  return redis.call('XDEL', own, entry_id) == 1
end
