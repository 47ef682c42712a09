#!lua
-- Saves a workflow under a name, as the version behind its latest; what equals the latest stays that.
--
-- KEYS  1 definitions (zset)  2 saved definition (hash)
-- ARGV  1 name  2 definition (JSON)  3 its digest  4 what is said about it (JSON)
-- RETURNS 'saved' or 'unchanged', and the version; 'corrupt' when the hash holds what flowd did not write
local latest = redis.pcall('HGET', KEYS[2], 'latest') or '0'
if type(latest) ~= 'string' or not string.match(latest, '^%d+$') or #latest > 9 then
  return { 'corrupt' }
end
-- First, as it may be damaged: then nothing has been written.
redis.call('ZADD', KEYS[1], 0, ARGV[1])
if redis.call('HGET', KEYS[2], 'digest:' .. latest) == ARGV[3] then
  return { 'unchanged', tonumber(latest) }
end
local version = string.format('%d', latest + 1)
redis.call('HSET', KEYS[2], 'latest', version, 'definition:' .. version, ARGV[2],
  'digest:' .. version, ARGV[3], 'about:' .. version, ARGV[4])
return { 'saved', tonumber(version) }
