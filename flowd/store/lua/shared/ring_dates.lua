-- Wakes the schedulers, who sleep until the first of all dates: this is due before it, perhaps. One sign
-- is enough, however many have rung.
local function ring_dates(member)
  redis.pcall('DEL', 'flowd:retries:wakeup')
  redis.pcall('LPUSH', 'flowd:retries:wakeup', member)
end
