#!lua flags=allow-oom
--- @use end_entry
-- Moves an entry no worker can make sense of out of the way; its raw fields are kept
-- (as one msgpack list, because they may be any bytes and any number).
--
-- KEYS  1 stream  2 dead letters (stream)
-- ARGV  1 group  2 entry id  3 reason
-- RETURNS 'buried', or 'gone' when somebody else was quicker
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
local fields = found and found[2] or {}
if not end_entry(KEYS[1], ARGV[1], ARGV[2]) then
  return 'gone'
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', 'reason', ARGV[3], 'entry_id', ARGV[2],
  'raw', cmsgpack.pack(fields))
return 'buried'
