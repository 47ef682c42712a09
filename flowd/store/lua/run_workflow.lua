#!lua
--- @use begin_execution
--- @use read_making
--- @use refuse_making
-- Stores a workflow and starts it, once for each input: each execution is made and started, or is not.
--
-- KEYS  1 active (set)  2 stream  3 continuations (zset)  4 executions (zset)  5 the saved definition it
--       is a run of (hash), where it is one
-- ARGV  1 '1' when nodes were staged before; then it is one execution  2 digest of the Idempotency-Key, or
--       empty  3 id of the many it stands for, or empty  4 version of the saved definition, or empty
--       5 '1' where that has to be the latest  6 its digest  7… what they have in common, see
--       begin_execution; then the id of each, its input (JSON), or empty, and, where they have a
--       `concurrency`, what it asks a place of
-- RETURNS for each 'triggered'; 'continue' (its roots are too many for one call: the caller opens them by
--         advance_node); 'exists' when this id is taken; 'closed' when it took so long that what was
--         staged has been removed, or the key no longer stands for this id; or 'deleted' when this id
--         was, and the work is not to be done again; 'waiting', 'replaced …' or 'refused', see
--         begin_execution. Only 'changed', and nothing is made, when this is
--         not what is saved
local names = { active = KEYS[1], stream = KEYS[2], continuations = KEYS[3], executions = KEYS[4] }
if ARGV[4] ~= '' then
  local latest, digest = unpack(redis.pcall('HMGET', KEYS[5], 'latest', 'digest:' .. ARGV[4]))
  if digest ~= ARGV[6] or ARGV[5] == '1' and latest ~= ARGV[4] then
    return { 'changed' }
  end
end
local claim = ARGV[2] ~= '' and 'flowd:idempotency:' .. ARGV[2] or nil
local making = read_making(7)
local outcomes = {}
local has_places = making.concurrency ~= ''
for at = making.next, #ARGV, has_places and 3 or 2 do
  local execution_id = ARGV[at]
  local claimant = ARGV[3] ~= '' and ARGV[3] or execution_id
  local outcome = refuse_making(KEYS[3], execution_id, ARGV[1] == '1', claim, claimant)
    or begin_execution(making, names, execution_id, ARGV[at + 1], {},
      has_places and ARGV[at + 2])
  if type(outcome) == 'table' then
    return outcome
  end
  if ARGV[1] == '1' then
    redis.pcall('ZREM', KEYS[3], 'submit ' .. execution_id)
  end
  outcomes[#outcomes + 1] = outcome
end
return outcomes
