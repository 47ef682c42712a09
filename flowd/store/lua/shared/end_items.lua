--- @use announce
--- @use end_entries
--- @use failure_text
--- @use is_live
--- @use is_outstanding
--- @use keep_dead_letter
--- @use keep_report
--- @use let_item_go lazily
--- @use open_items
--- @use spend_reserved
--- @use stop_items
--- @use wake_node
-- Commits a batch of items that have all ended in this state, and returns an outcome for each: the body of
-- complete_items and fail_items, which say what KEYS and ARGV hold; `width` is the number of arguments of
-- an item. Each end gives its place to the next item; the last wakes the node they belong to. Nothing of
-- an execution but its maps counts items.
local function end_items(state, event, width)
  local stream, group, count = KEYS[1], ARGV[1], tonumber(ARGV[3])
  local is_stale = end_entries(stream, group, 4, 3 + count)

  local keys = {}
  for nth = 1, count do
    local at = 4 + count + width * (nth - 1)
    local prefix = 'workflow:' .. ARGV[at]
    keys[2 * nth - 1] = prefix .. ':status'
    keys[2 * nth] = prefix .. ':node:' .. ARGV[at + 1]
  end
  keys[2 * count + 1] = 'flowd:halted'
  local states = redis.call('MGET', unpack(keys))

  -- Counts what ended of one map, and goes on with it; false where it is damaged.
  local function settle(ended, happened)
    local map = ended.map
    local known = redis.pcall('HMGET', map, 'max_failed', 'fail_fast', 'bytes_max', 'stopped')
    local max_failed, bytes_max = tonumber(known[1] or nil), tonumber(known[3] or nil)
    local total = max_failed and bytes_max and redis.pcall('HINCRBY', map, 'ended', #ended.nths)
    local bytes = redis.pcall('HINCRBY', map, 'bytes', ended.bytes)
    local failed = redis.pcall('HINCRBY', map, 'failed', state == 'FAILED' and #ended.nths or 0)
    if type(total) ~= 'number' or type(bytes) ~= 'number' or type(failed) ~= 'number' then
      return false
    elseif known[4] then
      return true
    end
    redis.pcall('SREM', map .. ':open', unpack(ended.indexes))
    if known[2] == '1' and failed > max_failed then
      stop_items(stream, ended.execution_id, ended.node_id, 'failed', happened)
    elseif bytes_max > 0 and bytes > bytes_max then
      stop_items(stream, ended.execution_id, ended.node_id, 'bytes', happened)
    else
      local outcome = open_items(stream, ended.execution_id, ended.node_id, ended.status)
      if outcome == 'over' then
        wake_node(stream, ended.execution_id, ended.node_id, 'items', '', happened)
      end
      return outcome ~= 'corrupt'
    end
    return true
  end

  -- What ended of each map, and what is to be written by one MSET.
  local outcomes, groups, by_map, writes, happened = {}, {}, {}, {}, {}
  for nth = 1, count do
    local at = 4 + count + width * (nth - 1)
    local execution_id, item, node = ARGV[at], ARGV[at + 1], keys[2 * nth]
    if is_stale[nth] then
      outcomes[nth] = 'stale'
    elseif not is_live(states[2 * nth - 1]) or not is_outstanding(states[2 * nth]) or by_map[node] then
      outcomes[nth] = 'ended'
      let_item_go(stream, execution_id, item, states[2 * nth - 1])
    else
      by_map[node] = true
      local node_id, index = string.match(item, '^(.+)%.(%d+)$')
      local map = 'workflow:' .. execution_id .. ':map:' .. node_id
      local ended = by_map[map]
      if not ended then
        ended = { execution_id = execution_id, node_id = node_id, map = map,
          status = states[2 * nth - 1], nths = {}, indexes = {}, records = {}, bytes = 0 }
        by_map[map] = ended
        groups[#groups + 1] = ended
      end
      ended.nths[#ended.nths + 1] = nth
      ended.indexes[#ended.indexes + 1] = index
      ended.records[#ended.records + 1] = item
      ended.records[#ended.records + 1] = ARGV[at + 3]
      writes[#writes + 1] = node
      writes[#writes + 1] = state
      writes[#writes + 1] = node .. ':output'
      writes[#writes + 1] = ARGV[at + 4]
      local text = execution_id .. ' ' .. item .. ' ' .. ARGV[at + 3]
      if state == 'FAILED' then
        local run = 'workflow:' .. execution_id .. ':run'
        keep_report(run, item, ARGV[at + 8])
        -- Others may wait for it, and would wait for ever.
        spend_reserved(run, item)
        keep_dead_letter(KEYS[4], ARGV[at + 10], ARGV[3 + nth], execution_id, item, ARGV[at + 3])
        redis.pcall('HSETNX', map, 'failure', item .. ': ' .. ARGV[at + 9])
        text = text .. failure_text(run, ARGV[at + 9])
        -- `null` among the results, and its index.
        ended.bytes = ended.bytes + #index + 5
      else
        ended.bytes = ended.bytes + #ARGV[at + 4]
      end
      happened[#happened + 1] = event
      happened[#happened + 1] = text
      outcomes[nth] = 'completed'
    end
  end
  if writes[1] then
    redis.call('MSET', unpack(writes))
  end
  for _, ended in ipairs(groups) do
    redis.pcall('HSET', 'workflow:' .. ended.execution_id .. ':attempts', unpack(ended.records))
    if not settle(ended, happened) then
      for _, nth in ipairs(ended.nths) do
        outcomes[nth] = 'corrupt'
      end
    end
  end
  announce(happened)
  outcomes[count + 1] = tonumber(states[2 * count + 1] or 0) or 0
  return outcomes
end
