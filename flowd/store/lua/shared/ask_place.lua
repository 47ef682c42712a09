--- @use count_holders
--- @use first_waiter
-- What an execution comes to that asks for a place: 'free'; 'full', then it waits; 'refused'; 'corrupt'; or
-- the error of a shared key that is damaged. Nothing is written. `place` is the digest of its key and the
-- key, `concurrency` is what its run says: how many may have one, and what is done when all are taken. Who
-- asks comes behind those that wait.
local function ask_place(place, concurrency)
  local digest = string.match(place, '^%x+')
  local most, when_full = string.match(concurrency, '^(%d+) (%l+)$')
  if not digest or not most then
    return 'corrupt'
  end
  local count = count_holders(digest)
  local waiters = redis.call('TYPE', 'flowd:concurrency:waiters').ok
  if not count or (waiters ~= 'none' and waiters ~= 'zset') then
    return redis.error_reply('WRONGTYPE what is kept of places was damaged')
  elseif count < tonumber(most) and not first_waiter(digest) then
    return 'free'
  end
  return when_full == 'refuse' and 'refused' or 'full'
end
