#!lua flags=allow-oom
--- @use park_node
--- @use reopen_node
-- Puts nodes whose next attempt is due in front of the workers.
--
-- KEYS  1 retries (zset)  2 stream
-- ARGV  1 now, ms  2 the most to move
-- RETURNS how many were due, and when the next one is, ms, or an empty text when there is none
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, member in ipairs(due) do
  local execution_id, node_id = string.match(member, '^(%x+) (.+)$')
  local prefix = 'workflow:' .. (execution_id or '')
  local status, state =
    unpack(redis.call('MGET', prefix .. ':status', prefix .. ':node:' .. (node_id or '')))
  if state == 'RETRYING' and status == 'RUNNING' then
    reopen_node(KEYS[2], execution_id, node_id, 0, 1)
  elseif state == 'RETRYING' and status == 'PAUSED' then
    park_node(execution_id, node_id, 0)
  end
  redis.call('ZREM', KEYS[1], member)
end
local next_one = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return { #due, next_one[2] or '' }
