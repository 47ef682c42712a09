--- @use place_of
-- As end_entry, of a batch of entries of one queue, whose full names are ARGV[first…last]: which of them, by
-- number, were no longer there, or stand twice in the batch. One command ends all; only when it ended
-- fewer is it worth asking which.
local function end_entries(stream, group, first, last)
  local own, ids = place_of(stream, ARGV[first]), ARGV
  if own ~= stream then
    ids = {}
    for at = first, last do
      ids[at] = select(2, place_of(stream, ARGV[at]))
    end
  end
  local is_stale = {}
  if redis.call('XACK', own, group, unpack(ids, first, last)) ~= last - first + 1 then
    for at = first, last do
      local entry_id = ids[at]
      is_stale[at - first + 1] = is_stale[entry_id]
        or #redis.call('XRANGE', own, entry_id, entry_id) == 0
      is_stale[entry_id] = true
    end
  end
  redis.call('XDEL', own, unpack(ids, first, last))
  return is_stale
end
