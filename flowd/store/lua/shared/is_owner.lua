-- True while this consumer holds this entry: the pending list is the table of leases.
local function is_owner(stream, group, entry_id, consumer)
  return #redis.call('XPENDING', stream, group, entry_id, entry_id, 1, consumer) == 1
end
