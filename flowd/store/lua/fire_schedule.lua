#!lua
--- @use announce
--- @use begin_execution
--- @use count_times lazily
--- @use plan_look
--- @use read_making
--- @use refuse_making
--- @use schedule_holders
--- @use server_ms
-- Does what is to be done about one time of a schedule: makes its execution and starts it, or keeps the
-- time, or counts it; and goes on to the next. Any number of schedulers may say it: for the first the
-- schedule is as they have seen it.
--
-- KEYS  1 schedule (hash)  2 holders (set)  3 due (zset)  4 active (set)  5 stream
--       6 continuations (zset)  7 executions (zset)  8 what the Idempotency-Key stands for (string), where
--       there is one
-- ARGV  1 name  2 revision  3 next time as it was seen, ms, or empty; '*' for whatever it is  4 the queued
--       one, the same  5 the time this is about, ms, or empty when no execution is to be made
--       6 what it is: 'due'; 'late', which waits for its turn; 'queued'; 'hand'; 'force'
--       7 what to do while another runs: 'skip', 'queue', 'replace', 'allow'  8 how many are missed
--       9 the last of them, ms  10 the next time from now on, ms, or empty; '*' for what it was
--       11 execution id  12 its input (JSON), or empty  13 '1' when nodes were staged before  14 what it
--       asks a place of, by its `concurrency`, or empty  15… see read_making
-- RETURNS an outcome, then the executions that hold a place: 'changed' (somebody else has done it, or
--         another rule holds); 'passed' (there was none to make); 'triggered'; 'continue' (its roots are too
--         many for one call: the caller opens them by advance_node); 'exists' when it was made before;
--         'held' or 'replaced …' (it was made, and waits for a place, see begin_execution); 'refused' (all
--         places are taken); 'waiting' (for its turn); 'queued'; 'skipped'; 'closed' when it took so long
--         that what was staged has been removed, or the key no longer stands for this id; 'deleted' when the execution was, and
--         the work is not to be done again
local schedule, name, time_ms, kind, overlap = KEYS[1], ARGV[1], ARGV[5], ARGV[6], ARGV[7]
local revision, next_ms, queued_ms =
  unpack(redis.call('HMGET', schedule, 'revision', 'next_ms', 'queued_ms'))
if revision ~= ARGV[2] or (ARGV[3] ~= '*' and (next_ms or '') ~= ARGV[3])
    or (ARGV[4] ~= '*' and (queued_ms or '') ~= ARGV[4]) then
  return { 'changed' }
end
local happened, outcome = {}, 'passed'
local holders, is_busy = {}, false
local is_made = time_ms ~= '' and redis.call('EXISTS', 'workflow:' .. ARGV[11] .. ':status') == 1
if time_ms ~= '' and not is_made and (overlap ~= 'allow' or kind == 'late') and kind ~= 'force' then
  holders, is_busy = schedule_holders(KEYS[2])
end
if time_ms ~= '' and not is_busy then
  outcome = refuse_making(KEYS[6], ARGV[11], ARGV[13] == '1', KEYS[8], ARGV[11])
  if outcome == 'closed' or outcome == 'deleted' then
    return { outcome }
  elseif not outcome then
    local names = { active = KEYS[4], stream = KEYS[5], continuations = KEYS[6], executions = KEYS[7] }
    outcome = begin_execution(read_making(15), names, ARGV[11], ARGV[12], {}, ARGV[14])
    if type(outcome) == 'table' then
      return outcome
    elseif outcome == 'waiting' then
      outcome = 'held'
    end
    if outcome ~= 'refused' then
      redis.pcall('ZREM', KEYS[6], 'submit ' .. ARGV[11])
      redis.call('HINCRBY', schedule, 'fired', 1)
      redis.pcall('HINCRBY', 'flowd:metrics', 'schedules fired', 1)
      redis.call('SADD', KEYS[2], ARGV[11])
    end
  end
  if outcome ~= 'refused' then
    redis.call('HSET', schedule, 'last_ms', time_ms, 'last_id', ARGV[11])
  end
  redis.call('HDEL', schedule, 'error', 'failures')
elseif time_ms == '' then
  outcome = 'passed'
elseif kind == 'late' or kind == 'queued' then
  outcome = 'waiting'
elseif overlap == 'skip' or (overlap == 'queue' and queued_ms) then
  outcome = 'skipped'
else
  outcome = 'queued'
end

if tonumber(ARGV[8]) > 0 then
  count_times(schedule, name, 'missed', ARGV[8], ARGV[9], happened)
end
if (outcome == 'skipped' or outcome == 'refused') and kind ~= 'hand' and kind ~= 'force' then
  count_times(schedule, name, 'skipped', 1, time_ms, happened)
elseif outcome == 'queued' then
  if queued_ms then
    count_times(schedule, name, 'skipped', 1, queued_ms, happened)
  end
  queued_ms = time_ms
  redis.call('HSET', schedule, 'queued_ms', time_ms)
elseif kind == 'queued' and outcome ~= 'waiting' then
  queued_ms = false
  redis.call('HDEL', schedule, 'queued_ms')
end
if ARGV[10] ~= '*' then
  -- What waits for its turn is what comes next.
  next_ms = outcome == 'waiting' and time_ms or ARGV[10]
  redis.call('HSET', schedule, 'next_ms', next_ms)
end
local waits = queued_ms or outcome == 'waiting'
redis.call('HSET', schedule, 'waits', waits and '1' or '0')
plan_look(KEYS[3], name, next_ms, waits, server_ms())
announce(happened)
return { outcome, unpack(holders) }
