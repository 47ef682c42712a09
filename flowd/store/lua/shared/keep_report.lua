-- Keeps what a node reports beside its error, in place of what an attempt before has reported.
local function keep_report(run, node_id, report)
  if report ~= '' then
    redis.pcall('HSET', run, 'report:' .. node_id, report)
  else
    redis.pcall('HDEL', run, 'report:' .. node_id)
  end
end
