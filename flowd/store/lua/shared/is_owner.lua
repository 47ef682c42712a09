-- True while this consumer holds this entry: the pending list is the table of leases. Where the
-- group is gone XPENDING is an error, and nobody holds anything.
local function is_owner(stream, group, entry_id, consumer)
  return #redis.pcall('XPENDING', stream, group, entry_id, entry_id, 1, consumer) == 1
end
