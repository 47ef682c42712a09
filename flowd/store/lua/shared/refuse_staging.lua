-- Why nothing is staged for an execution, nil where it is: 'exists' when a submission of the same id was
-- quicker, or 'closed' when what was staged has been removed, or is just being removed, or the execution
-- was deleted since: without the definition nobody would know what to remove.
local function refuse_staging(status, continuations, execution_id)
  if redis.call('EXISTS', status) == 1 then
    redis.call('ZREM', continuations, 'submit ' .. execution_id)
    return 'exists'
  end
  local is_open = redis.call('ZSCORE', continuations, 'submit ' .. execution_id)
    and not redis.call('ZSCORE', continuations, 'discard ' .. execution_id)
    and not redis.call('ZSCORE', continuations, 'delete ' .. execution_id)
    and redis.call('EXISTS', 'workflow:' .. execution_id) == 1
  return not is_open and 'closed' or nil
end
