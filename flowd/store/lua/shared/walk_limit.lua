--- @use settle_places
-- Settles the places of one limit, those of all keys, from behind `after`, or without one this place alone:
-- looks at `most` waiters, and leaves the others for the next call of a scheduler. Returns how many were
-- looked at.
local function walk_limit(stream, name, after, most)
  if not after then
    return settle_places(stream, { name }, most)
  end
  local looked, pages = 0, 100
  local places = redis.call('ZRANGEBYLEX', 'flowd:limits:places',
    '(' .. (after ~= '' and after or name .. '/'), '(' .. name .. '0', 'LIMIT', 0, pages)
  if after == '' then
    looked = settle_places(stream, { name }, most)
  end
  for at, place in ipairs(places) do
    looked = looked + settle_places(stream, { place }, math.max(0, most - looked))
    if looked >= most or at == pages then
      plan_settling(name .. ' ' .. place, steady_ms())
      break
    end
  end
  return looked
end
