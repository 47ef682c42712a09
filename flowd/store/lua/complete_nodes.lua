#!lua flags=allow-oom
--- @use open_node
--- @use finish_execution
-- Commits a batch of finished nodes and advances their dependents: the hot path of the engine.
-- The worker knows the plan, so nothing is looked up here that it could have said.
--
-- KEYS  1 stream  2 active (set)  3 continuations (zset)
-- ARGV  1 group  2 now, ms, then for each node:
--       entry id, execution id, node id, plan digest, attempt record, output (JSON),
--       number of dependents with one dependency, number of joins, number left to advance_node,
--       then the ids of the former, then of each join its id and how many it waits for
-- RETURNS for each node 'completed', 'finished' (and its execution with it), 'stale' (the attempt
--         was taken away, nothing written), 'ended' (its execution runs no more) or 'corrupt' (a key
--         of its execution holds something flowd did not write)
local call, pcall = redis.call, redis.pcall
local stream, active, continuations = KEYS[1], KEYS[2], KEYS[3]
local group, now_ms = ARGV[1], ARGV[2]
local outcomes, ended = {}, {}
local at, last = 3, #ARGV
while at < last do
  local entry_id, execution_id, node_id, plan = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local joins_at = at + 9 + ARGV[at + 6]
  local next_at = joins_at + 2 * ARGV[at + 7]
  local outcome = 'stale'

  -- The fence, see shared/end_entry.lua; the entries are deleted together at the end.
  if call('XACK', stream, group, entry_id) == 1 then
    ended[#ended + 1] = entry_id
    local prefix = 'workflow:' .. execution_id
    local node, run = prefix .. ':node:' .. node_id, prefix .. ':run'
    if pcall('GET', prefix .. ':status') ~= 'RUNNING' then
      outcome = 'ended'
    else
      outcome = 'completed'
      call('MSET', node, 'COMPLETED', node .. ':output', ARGV[at + 5])
      pcall('HSET', prefix .. ':attempts', node_id, ARGV[at + 4])
      for open_at = at + 9, joins_at - 1 do
        open_node(stream, execution_id, ARGV[open_at], plan)
      end
      for join_at = joins_at, next_at - 1, 2 do
        local arrived = pcall('HINCRBY', run, 'arrived:' .. ARGV[join_at], 1)
        if arrived == tonumber(ARGV[join_at + 1]) then
          open_node(stream, execution_id, ARGV[join_at], plan)
        end
      end
      if ARGV[at + 8] ~= '0' then
        call('ZADD', continuations, now_ms, 'advance ' .. execution_id .. ' ' .. node_id)
      end
      local remaining = pcall('HINCRBY', run, 'remaining', -1)
      if remaining == 0 then
        finish_execution(active, execution_id, now_ms)
        outcome = 'finished'
      elseif type(remaining) ~= 'number' or remaining < 0 then
        outcome = 'corrupt'
      end
    end
  end
  outcomes[#outcomes + 1] = outcome
  at = next_at
end
if #ended > 0 then
  call('XDEL', stream, unpack(ended))
end
return outcomes
