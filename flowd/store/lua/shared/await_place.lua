--- @use announce
--- @use replace_older lazily
--- @use steady_ms
-- Has an execution wait for a place of its key, as all are taken: 'waiting', or 'replaced' and the ids of
-- those that were cancelled for it; its state says then whether it has one. `told` is what else is said.
local function await_place(stream, active, group, execution_id, place, concurrency, now_ms, told)
  local digest, key = string.match(place, '^%x+'), 'flowd:concurrency:waiters'
  -- Behind who has asked before, also in the same millisecond.
  local last = redis.call('ZRANGE', key, '(' .. digest .. '!', '[' .. digest .. ' ', 'BYLEX', 'REV',
    'LIMIT', 0, 1)[1]
  local since_ms = math.max(steady_ms(), last and string.match(last, ' (%d+) ') + 1 or 0)
  since_ms = string.format('%.0f', since_ms)
  redis.call('ZADD', key, 0, string.format('%s %015d %s', digest, since_ms, execution_id))
  redis.call('HSET', 'workflow:' .. execution_id .. ':run', 'place', place, 'waiting', since_ms .. ' ' .. group)
  announce({ 'execution.waiting', execution_id .. told })
  redis.pcall('HINCRBY', 'flowd:metrics', 'concurrency waited', 1)
  local most, when_full = string.match(concurrency, '^(%d+) (%l+)$')
  if when_full ~= 'replace' then
    return 'waiting'
  end
  local replaced = replace_older(stream, active, execution_id, place, tonumber(most), now_ms)
  return replaced[1] and 'replaced ' .. table.concat(replaced, ' ') or 'waiting'
end
