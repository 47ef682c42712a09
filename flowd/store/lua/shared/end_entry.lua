-- Takes an entry out of the stream for good. True when it was still there.
--
-- This is the fence. An entry is delivered once in its life: giving its node to another worker
-- deletes the entry and appends a new one, so an entry id stands for one attempt by one owner, and
-- an entry that is no longer in the stream belongs to an attempt that has been taken away.
local function end_entry(stream, group, entry_id)
  redis.call('XACK', stream, group, entry_id)
  return redis.call('XDEL', stream, entry_id) == 1
end
