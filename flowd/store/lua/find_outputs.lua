#!lua flags=no-writes
--- @use steady_ms
-- Reads outputs that are kept for equal calls.
--
-- KEYS  none
-- ARGV  1… two for each: its name, how many ms old it may be
-- RETURNS what is kept under these names, '' where there is nothing that is young enough
local now_ms, found = steady_ms(), {}
for at = 1, #ARGV, 2 do
  local kept = redis.pcall('GET', 'flowd:cache:' .. ARGV[at])
  local written_ms, ttl_ms, output =
    string.match(type(kept) == 'string' and kept or '', '^(%d+) (%d+) (.*)$')
  local age_ms = written_ms and now_ms - written_ms
  local is_young = age_ms and age_ms < tonumber(ttl_ms) and age_ms < tonumber(ARGV[at + 1])
  found[#found + 1] = is_young and output or ''
end
return found
