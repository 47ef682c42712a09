--- @use place_of
-- True while this consumer holds this entry, given by its full name: the pending list is the table of leases. Where the
-- group is gone XPENDING is an error, and nobody holds anything.
local function is_owner(stream, group, name, consumer)
  local own, entry_id = place_of(stream, name)
  return #redis.pcall('XPENDING', own, group, entry_id, entry_id, 1, consumer) == 1
end
