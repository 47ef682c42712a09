-- Why an execution of this id is not to be made, nil where it is: 'exists'; 'closed' when it took so long
-- that what was staged has been removed, or the key no longer stands for it; 'deleted' when it was, and
-- the work is not to be done again. `claim` is the key of the Idempotency-Key, nil where there is none.
local function refuse_making(continuations, execution_id, is_staged, claim)
  local submission = 'submit ' .. execution_id
  if redis.call('EXISTS', 'workflow:' .. execution_id .. ':status') == 1 then
    redis.call('ZREM', continuations, submission)
    return 'exists'
  end
  if is_staged and not redis.call('ZSCORE', continuations, submission) then
    return 'closed'
  end
  local claimed = claim and (redis.call('GET', claim) or '')
  if claimed and string.sub(claimed, -#execution_id) ~= execution_id then
    return 'closed'
  end
  return claimed and string.find(claimed, '^deleted ') and 'deleted' or nil
end
