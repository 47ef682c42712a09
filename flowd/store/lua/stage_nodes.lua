#!lua
--- @use refuse_staging
-- Stores some nodes of a workflow that has too many for one call; submit_workflow then makes it exist.
--
-- KEYS  1 status (string)  2 continuations (zset)
-- ARGV  1 execution id  2 state  3… ids of nodes
-- RETURNS 'staged', or what refuse_staging says against it
local refusal = refuse_staging(KEYS[1], KEYS[2], ARGV[1])
if refusal then
  return refusal
end
local prefix = 'workflow:' .. ARGV[1] .. ':node:'
for at = 3, #ARGV do
  redis.call('SET', prefix .. ARGV[at], ARGV[2])
end
return 'staged'
