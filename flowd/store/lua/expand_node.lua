#!lua flags=allow-oom
--- @use announce
--- @use is_live
--- @use is_outstanding
--- @use open_items
--- @use wake_node
-- Begins with the items of a node with `map` whose list is stored: as many as its window has room for.
-- Said again it fills the window up, or says that all of them have ended.
--
-- KEYS  1 stream  2 status (string)  3 node (string)  4 map (hash)  5 its todo (list)
-- ARGV  1 execution id  2 node id  3 number of items  4 window  5 most items that may fail
--       6 '1' to stop at the first that is too many  7 most bytes of its output, 0 for any
-- RETURNS 'expanded', 'ended' when the node runs no more, 'incomplete' when the list is not whole, or
--         'corrupt' (a key of the map holds something flowd did not write)
local status, state = unpack(redis.call('MGET', KEYS[2], KEYS[3]))
if not is_live(status) or not is_outstanding(state) then
  return 'ended'
end
if redis.call('EXISTS', KEYS[4]) == 0 then
  if redis.call('LLEN', KEYS[5]) ~= tonumber(ARGV[3]) then
    return 'incomplete'
  end
  redis.call('HSET', KEYS[4], 'n', ARGV[3], 'window', ARGV[4], 'max_failed', ARGV[5],
    'fail_fast', ARGV[6], 'bytes_max', ARGV[7], 'ended', 0, 'failed', 0, 'bytes', 0)
end
local happened = {}
local outcome = open_items(KEYS[1], ARGV[1], ARGV[2], status)
if outcome == 'over' then
  wake_node(KEYS[1], ARGV[1], ARGV[2], 'items', '', happened)
  announce(happened)
end
return outcome == 'corrupt' and 'corrupt' or 'expanded'
