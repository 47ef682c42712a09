#!lua flags=allow-oom
--- @use park_node
--- @use reopen_node
--- @use steady_ms
-- Puts nodes whose next attempt is due in front of the workers.
--
-- KEYS  1 retries (zset)  2 stream
-- ARGV  1 the most to move
-- RETURNS how many were due, and how many ms are left until the next one, or an empty text when there
--         is none
local now_ms = steady_ms()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[1])
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
local next_ms = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return { #due, next_ms and math.max(0, math.ceil(next_ms - now_ms)) or '' }
