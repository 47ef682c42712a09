--- @use admit_waiters
-- Gives back the place that an execution has had, or has waited for; whoever has waited longest gets it.
local function return_place(stream, active, execution_id, place, waiting, now_ms)
  local digest = string.match(place, '^%x+')
  if not digest then
    return
  end
  redis.pcall('ZREM', 'flowd:concurrency:holders', digest .. ' ' .. execution_id)
  local since_ms = waiting and string.match(waiting, '^%d+')
  if since_ms then
    redis.pcall('ZREM', 'flowd:concurrency:waiters', string.format('%s %015d %s', digest, since_ms, execution_id))
    redis.pcall('HDEL', 'workflow:' .. execution_id .. ':run', 'waiting')
  end
  admit_waiters(stream, active, digest, now_ms)
end
