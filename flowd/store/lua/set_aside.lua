#!lua flags=allow-oom
-- Moves keys that are about no single execution, and of another type than flowd keeps there, out of
-- the way with all that is in them. What flowd needs of them it makes anew.
--
-- KEYS  the keys to look at
-- ARGV  1 what their new names begin with  2… the type of each
-- RETURNS their new names
local moved = {}
for at, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= ARGV[at + 1] then
    moved[#moved + 1] = ARGV[1] .. key
    redis.call('RENAME', key, moved[#moved])
  end
end
return moved
