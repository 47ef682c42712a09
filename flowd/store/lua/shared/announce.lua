-- Appends what has happened to the stream of events: a flat list of type and text, and a text is what
-- the event is about, space between. Few to an entry, so that a cap on entries is one on memory.
local function announce(happened)
  for first = 1, #happened, 32 do
    redis.pcall('XADD', 'flowd:events', 'MAXLEN', '~', 50000, '*',
      unpack(happened, first, math.min(first + 31, #happened)))
  end
end
