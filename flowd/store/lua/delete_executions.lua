#!lua flags=allow-oom
--- @use announce
--- @use end_execution
--- @use is_live
--- @use list_status
-- Begins to delete executions that do not run: from here on they are unknown, and nobody makes them
-- again under the Idempotency-Key they were submitted with. Their other keys follow in slices; the
-- continuation says so until the last is gone.
--
-- KEYS  1 continuations (zset)  2 active (set)  3 finished (zset)  4 stream
-- ARGV  1 now, ms  2 '1' when each is among the finished: then what has lost its status goes too, and
--       what runs or waits is taken out of there; else one that is PENDING is cancelled first; '2' as '1',
--       of children whose parent is being deleted
--       3… execution ids
-- RETURNS for each 'deleted', 'unknown', 'corrupt' (its status is none), 'child' (it goes with its
--         parent), 'parent' (children of it have not ended), or the state that cannot be deleted
local continuations, now_ms, is_finished = KEYS[1], ARGV[1], ARGV[2] ~= '0'

local function verdict(status)
  if status == 'CANCELLING' then
    return 'RUNNING'
  elseif is_live(status) or (status == 'PENDING' and is_finished) then
    return status
  elseif status == 'PENDING' or status == 'COMPLETED' or status == 'FAILED' or status == 'CANCELLED'
      or is_finished then
    return 'deleted'
  end
  return status and 'corrupt' or 'unknown'
end

-- Children are not deleted before their parent, and it is not while one of them runs.
local function kinship(parent, children)
  if type(children) == 'string' and children ~= '0' then
    return 'parent'
  end
  local parent_id = ARGV[2] ~= '2' and type(parent) == 'string' and string.match(parent, '^%x+')
  return parent_id and redis.call('EXISTS', 'workflow:' .. parent_id .. ':status') == 1 and 'child'
end

local function close_key(execution_id, digest)
  local key = type(digest) == 'string' and 'flowd:idempotency:' .. digest
  local claim = key and redis.pcall('GET', key)
  if type(claim) ~= 'string' or not string.find(claim, '^%x+ ') then
    return
  elseif string.sub(claim, -#execution_id) == execution_id then
    redis.call('SET', key, 'deleted ' .. claim, 'KEEPTTL')
  else
    -- The key stands for many, of which the others may still be to make.
    redis.call('SET', key .. ':' .. execution_id, 'deleted', 'EX', 86400)
  end
end

local outcomes = {}
for at = 3, #ARGV do
  local execution_id, prefix = ARGV[at], 'workflow:' .. ARGV[at]
  local status = redis.pcall('GET', prefix .. ':status')
  local outcome, digest, parent, children, name = verdict(status)
  if outcome == 'deleted' then
    digest, parent, children, name =
      unpack(redis.pcall('HMGET', prefix .. ':run', 'idempotency', 'parent', 'children', 'name'))
    outcome = kinship(parent, children) or outcome
  end
  if outcome == 'deleted' then
    -- First, as it may be damaged: then nothing has been written.
    redis.call('ZADD', continuations, now_ms, 'delete ' .. execution_id)
    if status == 'PENDING' then
      announce({ end_execution(KEYS[4], KEYS[2], execution_id, 'CANCELLED', now_ms), execution_id })
      status = 'CANCELLED'
    end
    list_status(execution_id, status)
    if type(name) == 'string' then
      redis.pcall('ZREM', 'flowd:names', name .. '\0' .. execution_id)
    end
    close_key(execution_id, digest)
    redis.call('DEL', prefix .. ':status')
  elseif is_finished and (outcome == 'child' or outcome == 'parent') then
    -- Retention asks again after as long as it keeps what has ended.
    redis.call('ZADD', KEYS[3], 'XX', now_ms, execution_id)
  elseif is_finished then
    redis.call('ZREM', KEYS[3], execution_id)
  end
  outcomes[#outcomes + 1] = outcome
end
return outcomes
