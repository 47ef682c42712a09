#!lua flags=allow-oom
--- @use count_cancelled
--- @use release_place
-- Marks a slice of the nodes of an execution that is cancelled, or being cancelled before its `finally`.
-- Entries still in the stream go when a worker meets them, and in the second case their nodes with them;
-- one with `map` goes with the last of its items.
-- Every slice may be sent twice.
--
-- KEYS  1 retries (zset)  2 continuations (zset)  3 alarms (zset)  4 stream
-- ARGV  1 execution id  2 '1' with the last slice  3 the status it is sent for: 'CANCELLED' or
--       'CANCELLING'  4… ids of nodes
-- RETURNS how many were marked
local execution_id, wanted = ARGV[1], ARGV[3]
local prefix = 'workflow:' .. execution_id
local status = redis.pcall('GET', prefix .. ':status')
local marked = 0
if status == wanted then
  local has_places = redis.call('EXISTS', prefix .. ':places') == 1
  for at = 4, #ARGV do
    local node = prefix .. ':node:' .. ARGV[at]
    local state = redis.pcall('GET', node)
    if state == 'RETRYING' or state == 'WAITING' then
      redis.call('ZREM', KEYS[1], execution_id .. ' ' .. ARGV[at])
    end
    if state == 'WAITING' then
      redis.call('ZREM', KEYS[3], execution_id .. ' ' .. ARGV[at])
      redis.pcall('HDEL', prefix .. ':waits', ARGV[at])
    end
    local has_entry = state == 'QUEUED' or state == 'RUNNING'
      or state == 'WAITING' and redis.pcall('EXISTS', prefix .. ':map:' .. ARGV[at] .. ':open') == 1
    if not has_entry and (state == 'PENDING' or state == 'RETRYING' or state == 'WAITING')
        or has_entry and wanted == 'CANCELLED' then
      redis.call('SET', node, 'CANCELLED')
      marked = marked + 1
      if has_places then
        release_place(KEYS[4], execution_id, ARGV[at])
      end
    end
  end
  if wanted == 'CANCELLING' and marked > 0 then
    count_cancelled(KEYS[4], execution_id, marked)
  end
end
-- Who was forced to cancel the rest meanwhile has as much to do again; whose `finally` has ended has not.
local is_forced = status == 'CANCELLED' and wanted == 'CANCELLING'
  and redis.pcall('HGET', prefix .. ':run', 'remaining') ~= '0'
if ARGV[2] == '1' and not is_forced then
  redis.call('ZREM', KEYS[2], 'cancel ' .. execution_id)
end
return marked
