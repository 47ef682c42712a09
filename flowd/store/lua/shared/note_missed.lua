--- @use server_ms
-- Notes that times of a schedule were missed, for whoever looks at what needs somebody: how many, and since
-- when. What comes within a day of the ones before is added to those.
local function note_missed(schedule, name, count)
  local key, now_ms, day_ms = 'flowd:schedules:missed', server_ms(), 86400000
  local before = redis.pcall('ZSCORE', key, name)
  if type(before) ~= 'string' or now_ms - before > day_ms then
    redis.call('HSET', schedule, 'unmet', 0, 'unmet_ms', redis.call('HGET', schedule, 'next_ms') or '')
  end
  redis.pcall('HINCRBY', schedule, 'unmet', count)
  local before_that = string.format('(%.0f', now_ms - day_ms)
  local old = redis.pcall('ZRANGEBYSCORE', key, '-inf', before_that, 'LIMIT', 0, 100)
  if not old.err and #old > 0 then
    redis.call('ZREM', key, unpack(old))
  end
  redis.pcall('ZADD', key, string.format('%.0f', now_ms), name)
  redis.pcall('EXPIRE', key, day_ms / 1000)
end
