#!lua flags=allow-oom
-- Forgets queues that are empty, that no worker reads, and that nothing that runs names. While very much
-- runs, that is left for a calmer moment.
--
-- KEYS  1 queues (set)  2 active (set)  3 stream of the default queue
-- ARGV  1 group  2 the most executions to ask
-- RETURNS the names of those it has forgotten
local pruned, named = {}, nil

local function is_named(queue)
  if not named then
    named = {}
    for _, execution_id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
      local said = redis.pcall('HGET', 'workflow:' .. execution_id .. ':run', 'queues')
      for name in string.gmatch(type(said) == 'string' and said or '', '%S+') do
        named[name] = true
      end
    end
  end
  return named[queue]
end

if redis.call('SCARD', KEYS[2]) > tonumber(ARGV[2]) then
  return pruned
end
for _, queue in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local stream = KEYS[3] .. ':' .. queue
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, ARGV[1])
  local is_read = not consumers.err and #consumers > 0
  if not is_read and redis.pcall('XLEN', stream) == 0 and not is_named(queue) then
    redis.call('SREM', KEYS[1], queue)
    redis.call('DEL', stream)
    pruned[#pruned + 1] = queue
  end
end
return pruned
