-- Puts an execution among the active ones, and makes the stream it queues its nodes in: a group made
-- later would have to begin behind what is already there, or hand out again what others are running, so
-- the first one to write makes it. Where one of them is damaged nothing has been written.
local function admit_execution(active, stream, group, execution_id)
  local kind = redis.call('TYPE', stream).ok
  if kind ~= 'none' and kind ~= 'stream' then
    return redis.error_reply('WRONGTYPE the task stream is a ' .. kind)
  end
  redis.call('SADD', active, execution_id)
  if kind == 'none' then
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  end
end
