-- The waiter of this key who has asked first, as it stands among them; nil where there is none.
local function first_waiter(digest)
  return redis.pcall('ZRANGE', 'flowd:concurrency:waiters', '[' .. digest .. ' ', '(' .. digest .. '!',
    'BYLEX', 'LIMIT', 0, 1)[1]
end
