#!lua flags=allow-oom
--- @use forget_output
-- Forgets outputs that are kept for equal calls.
--
-- KEYS  1 cache (zset)  2 sizes (hash)
-- ARGV  1… their names
-- RETURNS how many there were
local dropped = 0
for _, name in ipairs(ARGV) do
  dropped = dropped + forget_output(name)
end
return dropped
