-- Leaves it to a later call that the children of an execution follow it: `children` is what its run says of
-- how many have not ended, `how` is 'hold' where they are paused or resumed as it is, 'force' where they
-- are cancelled without their `finally`, else empty. Nothing where it has none.
local function leave_follow(execution_id, children, how, now_ms)
  if type(children) == 'string' and children ~= '0' then
    redis.pcall('ZADD', 'flowd:continuations', now_ms, 'follow ' .. execution_id .. ' ' .. how)
  end
end
