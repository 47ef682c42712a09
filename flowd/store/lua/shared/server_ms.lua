-- The server's wall clock: what several hosts wait for has to go by one.
local function server_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
