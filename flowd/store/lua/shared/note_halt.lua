-- Notes how far the stream was filled when an execution was halted: entries up to there may be its own,
-- and whoever has taken one asks first. Where there is no stream there is nothing to ask about.
local function note_halt(stream, halted)
  local described = redis.pcall('XINFO', 'STREAM', stream)
  for at = 1, #described, 2 do
    if described[at] == 'last-generated-id' then
      redis.call('SET', halted, string.match(described[at + 1], '^%d+'))
    end
  end
end
