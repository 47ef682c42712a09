#!lua
--- @use announce
--- @use make_execution
--- @use note_rerun lazily
--- @use refuse_making
-- Stores a workflow with all its nodes PENDING. A reply that was lost can simply be asked for again.
--
-- KEYS  1 continuations (zset)  2 executions (zset)  3 what the Idempotency-Key stands for (string),
--       where there is one
-- ARGV  1 execution id  2 id the Idempotency-Key stands for  3 definition (JSON)  4 '1' when nodes were
--       staged before  5 its labels, a line `name=value` each  6 number of values of the run  7… the run,
--       field and value, then the ids of the nodes not yet staged
-- RETURNS 'submitted', 'exists' when this id is taken, 'closed' when it took so long that what was
--         staged has been removed, or the key no longer stands for this id, or 'deleted' when this id
--         was, and the work is not to be done again
local execution_id = ARGV[1]
local refusal = refuse_making(KEYS[1], execution_id, ARGV[4] == '1', KEYS[3], ARGV[2])
if refusal then
  return refusal
end
-- First, as it may be damaged: then nothing has been written.
redis.call('ZADD', KEYS[2], 0, execution_id)
make_execution(execution_id, ARGV[3], ARGV[5], ARGV, 7, ARGV[6], 'PENDING')
if ARGV[4] == '1' then
  redis.pcall('ZREM', KEYS[1], 'submit ' .. execution_id)
  note_rerun(execution_id)
end
announce({ 'execution.submitted', execution_id })
return 'submitted'
