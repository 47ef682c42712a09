-- Why an execution of this id is not to be made, nil where it is: 'exists'; 'closed' when it took so long
-- that what was staged has been removed, or the key no longer stands for it; 'deleted' when it was, and
-- the work is not to be done again. `claim` is the key of the Idempotency-Key, nil where there is none;
-- `claimant` the id it stands for: that of the execution, or that of the many it is one of.
local function refuse_making(continuations, execution_id, is_staged, claim, claimant)
  local submission = 'submit ' .. execution_id
  if redis.call('EXISTS', 'workflow:' .. execution_id .. ':status') == 1 then
    redis.call('ZREM', continuations, submission)
    return 'exists'
  end
  if is_staged and not redis.call('ZSCORE', continuations, submission) then
    return 'closed'
  end
  if not claim then
    return nil
  end
  local claimed = redis.call('GET', claim) or ''
  if string.sub(claimed, -#claimant) ~= claimant then
    return 'closed'
  end
  local is_deleted = string.find(claimed, '^deleted ')
    or claimant ~= execution_id and redis.call('EXISTS', claim .. ':' .. execution_id) == 1
  return is_deleted and 'deleted' or nil
end
