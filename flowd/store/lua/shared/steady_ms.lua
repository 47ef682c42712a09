--- @use server_ms
-- The clock by which everything waits: the server's, and all that it was ever put back, so that this
-- one never goes back. Whoever reads it needs to do nothing when the other does; the schedulers keep it.
local function steady_ms()
  local ahead = redis.pcall('HGET', 'flowd:clock', 'ahead_ms')
  local is_count = type(ahead) == 'string' and #ahead <= 15 and string.match(ahead, '^%d+$')
  return server_ms() + (is_count and tonumber(ahead) or 0)
end
