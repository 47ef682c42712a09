#!lua flags=allow-oom
--- @use place_of
-- Moves an entry no worker can make sense of out of the way; its raw fields are kept
-- (as one msgpack list, because they may be any bytes and any number). Whether somebody holds the
-- entry is not asked: nobody does when its group was destroyed.
--
-- KEYS  1 stream  2 dead letters (stream)
-- ARGV  1 group  2 name of the entry  3 reason
-- RETURNS 'buried', or 'gone' when somebody else was quicker
local stream, entry_id = place_of(KEYS[1], ARGV[2])
local found = redis.call('XRANGE', stream, entry_id, entry_id)[1]
if found then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', 'reason', ARGV[3], 'entry_id', ARGV[2],
    'raw', cmsgpack.pack(found[2]))
end
redis.call('XACK', stream, ARGV[1], entry_id)
redis.call('XDEL', stream, entry_id)
return found and 'buried' or 'gone'
