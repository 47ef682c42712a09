--- @use cancel_execution
-- Cancels what is older than an execution that waits for a place of its key, so many that it and the newest
-- before it have one: first who holds a place, then who waits for one; their ids. It starts in the same
-- step, unless what was cancelled has a `finally` to run.
local function replace_older(stream, active, execution_id, place, most, now_ms)
  local digest = string.match(place, '^%x+')
  local first, last = '[' .. digest .. ' ', '(' .. digest .. '!'
  local older, replaced = {}, {}
  for _, key in ipairs({ 'flowd:concurrency:holders', 'flowd:concurrency:waiters' }) do
    for _, member in ipairs(redis.call('ZRANGE', key, first, last, 'BYLEX', 'LIMIT', 0, 100)) do
      local one = string.match(member, '%x+$')
      local is_going = redis.pcall('GET', 'workflow:' .. one .. ':status') == 'CANCELLING'
        or redis.pcall('HGET', 'workflow:' .. one .. ':run', 'ends_as') == 'CANCELLED'
      if one ~= execution_id and not is_going then
        older[#older + 1] = one
      end
    end
  end
  for at = 1, #older + 1 - most do
    local outcome = cancel_execution(stream, active, older[at], now_ms, false)
    if outcome == 'cancelled' or outcome == 'cancelling' then
      replaced[#replaced + 1] = older[at]
    end
  end
  redis.pcall('HINCRBY', 'flowd:metrics', 'concurrency replaced', #replaced)
  return replaced
end
