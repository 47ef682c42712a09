#!lua flags=allow-oom
--- @use announce
--- @use end_execution
--- @use failure_text
--- @use note_halt
--- @use release_place
-- Ends an execution whose keys no longer make sense: visibly, and without touching what is in them.
--
-- KEYS  1 status (string)  2 run (hash)  3 active (set)  4 stream
-- ARGV  1 execution id  2 reason  3 now, ms
-- RETURNS 'failed', or 'ended' when it does not run
local state = redis.pcall('GET', KEYS[1])
if state == 'PENDING' then
  return 'ended'
end
if not state or state == 'COMPLETED' or state == 'FAILED' or state == 'CANCELLED' then
  redis.pcall('SREM', KEYS[3], ARGV[1])
  return 'ended'
end
redis.pcall('HSET', KEYS[2], 'error', ARGV[2])
announce({ end_execution(KEYS[4], KEYS[3], ARGV[1], 'FAILED', ARGV[3]),
  ARGV[1] .. ' ' .. failure_text(KEYS[2], ARGV[2]) })
note_halt(KEYS[4], 'flowd:halted')
local found = redis.pcall('HSCAN', 'workflow:' .. ARGV[1] .. ':places', 0, 'COUNT', 500)
for at = 1, #(found[2] or {}), 2 do
  release_place(KEYS[4], ARGV[1], found[2][at])
end
return 'failed'
