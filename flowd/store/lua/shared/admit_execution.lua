-- Puts an execution among the active ones, and makes the streams it queues its nodes in: a group made
-- later would have to begin behind what is already there, or hand out again what others are running, so
-- the first one to write makes it. `queues` are the names of those that are not the default one, nil where
-- all are. Where one of them is damaged nothing has been written.
local function admit_execution(active, stream, group, execution_id, queues)
  local kind = redis.call('TYPE', stream).ok
  if kind ~= 'none' and kind ~= 'stream' then
    return redis.error_reply('WRONGTYPE the task stream is a ' .. kind)
  end
  local others = {}
  if queues then
    for queue in string.gmatch(queues, '%S+') do
      local own = redis.call('TYPE', stream .. ':' .. queue).ok
      if own ~= 'none' and own ~= 'stream' then
        return redis.error_reply('WRONGTYPE the stream of queue ' .. queue .. ' is a ' .. own)
      end
      others[#others + 1] = queue
    end
  end
  redis.call('SADD', active, execution_id)
  for _, queue in ipairs(others) do
    redis.pcall('SADD', 'flowd:queues', queue)
    if redis.call('EXISTS', stream .. ':' .. queue) == 0 then
      redis.call('XGROUP', 'CREATE', stream .. ':' .. queue, group, '0', 'MKSTREAM')
    end
  end
  if kind == 'none' then
    redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
  end
end
