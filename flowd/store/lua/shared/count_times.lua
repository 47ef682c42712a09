--- @use note_missed lazily
--- @use tell_times lazily
-- Counts times of a schedule that had no execution, and appends the event that says so to `happened`:
-- 'missed' ones, or those 'skipped' because another was running. `last_ms` is the last of them.
local function count_times(schedule, name, word, count, last_ms, happened)
  redis.call('HINCRBY', schedule, word, count)
  redis.pcall('HINCRBY', 'flowd:metrics', 'schedules ' .. word, count)
  happened[#happened + 1] = 'schedule.' .. word
  happened[#happened + 1] = string.format('-\n{"schedule":"%s","times":%d,"scheduled_ms":%s}', name,
    count, last_ms)
  if word == 'missed' then
    note_missed(schedule, name, count)
  end
  if redis.call('HGET', schedule, 'callback') == '1' then
    tell_times(name, word, count, last_ms)
  end
end
