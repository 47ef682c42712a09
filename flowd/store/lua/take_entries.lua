#!lua flags=allow-oom
-- Takes entries from several queues: as many as there is room for, from each only what those before it
-- leave. The command alone would take as many from each.
--
-- KEYS  the streams, in the order to read them
-- ARGV  1 group  2 consumer  3 the most to take
-- RETURNS what XREADGROUP does, by the names of the streams; and the error of a stream that could not be read, or an empty
--         text: what was taken from the others is delivered all the same
local taken, left, trouble = {}, tonumber(ARGV[3]), ''
for _, stream in ipairs(KEYS) do
  local reply =
    redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', stream, '>')
  if reply and reply.err then
    trouble = reply.err
  elseif reply and reply[1] then
    taken[#taken + 1] = reply[1]
    left = left - #reply[1][2]
    if left <= 0 then
      break
    end
  end
end
return { taken, trouble }
