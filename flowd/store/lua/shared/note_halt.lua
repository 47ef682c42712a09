-- Notes how far the streams were filled when an execution was halted: entries up to there may be its own,
-- and whoever has taken one asks first. Where there is no stream there is nothing to ask about.
local function note_halt(stream, halted)
  local streams, newest_ms = { stream }, nil
  for at, queue in ipairs(redis.pcall('SMEMBERS', 'flowd:queues')) do
    streams[at + 1] = stream .. ':' .. queue
  end
  for _, own in ipairs(streams) do
    local described = redis.pcall('XINFO', 'STREAM', own)
    for at = 1, #described, 2 do
      if described[at] == 'last-generated-id' then
        newest_ms = math.max(newest_ms or 0, tonumber(string.match(described[at + 1], '^%d+')))
      end
    end
  end
  if newest_ms then
    redis.call('SET', halted, string.format('%.0f', newest_ms))
  end
end
