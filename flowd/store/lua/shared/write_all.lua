-- Writes keys, a flat list of key and value, however many there are.
local function write_all(writes)
  for first = 1, #writes, 4000 do
    redis.call('MSET', unpack(writes, first, math.min(first + 3999, #writes)))
  end
end
