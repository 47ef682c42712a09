--- @use steady_ms
-- What a limit allows: how many at once, how many ms are between two starts, and how many ms before its
-- time one may be. Nothing is held back by a limit that nobody has made, or that says nothing readable.
local rules_of = {}
local function limit_rules(place)
  local name = string.match(place, '^[^/]*')
  if rules_of[name] then
    return rules_of[name]
  end
  local said = redis.pcall('HGET', 'flowd:limits', name)
  local max, per_s, burst = string.match(type(said) == 'string' and said or '', '^(%S+) (%S+) (%S+)$')
  local rules = { max = tonumber(max) or math.huge }
  if (tonumber(per_s) or 0) > 0 then
    rules.interval_ms = 1000 / per_s
    rules.ahead_ms = ((tonumber(burst) or 1) - 1) * rules.interval_ms
  end
  rules_of[name] = rules
  return rules
end

-- How many hold a place, or wait for it; what else stands under that name is set aside, or it would stop
-- every worker that asks.
local function count_members(key)
  local count = redis.pcall('ZCARD', key)
  if type(count) ~= 'number' then
    redis.call('RENAME', key, string.format('flowd:damaged:%.0f:%s', steady_ms(), key))
    count = 0
  end
  return count
end

-- Counts a start of a limit that has a rate: the time by which the next one is due, on average, moves on.
-- Who waited for this one is at most a tenth of a second late without a loss for those behind.
local function count_start(place, rules, now_ms, due_ms)
  local is_in_time = due_ms and now_ms - (due_ms - rules.ahead_ms) <= 100
  local next_ms = (is_in_time and due_ms or math.max(due_ms or now_ms, now_ms)) + rules.interval_ms
  redis.call('SET', 'flowd:limit:' .. place .. ':rate', string.format('%.3f', next_ms), 'PX',
    string.format('%.0f', math.max(0, next_ms - now_ms) + 1000))
  return next_ms
end

-- By when the next start is due, on average; nil where it may be at once.
local function due_start(place)
  local due_ms = redis.pcall('GET', 'flowd:limit:' .. place .. ':rate')
  return type(due_ms) == 'string' and tonumber(due_ms) or nil
end
