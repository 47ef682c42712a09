-- Takes an entry out of the stream for good. True when it was still somebody's to end.
--
-- This is the fence. An entry is delivered once in its life: giving its node to another worker
-- closes the entry and appends a new one, so an entry id stands for one attempt by one owner, and
-- an entry that is no longer pending belongs to an attempt that has been taken away.
local function end_entry(stream, group, entry_id)
  local ended = redis.call('XACK', stream, group, entry_id) == 1
  if ended then
    redis.call('XDEL', stream, entry_id)
  end
  return ended
end
