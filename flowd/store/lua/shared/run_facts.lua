-- What the run hash of an execution says that matters to its end, in the order in which finish_execution and
-- end_execution read it, and whether that is anything but its parent: of most it is not.
local function run_facts(run)
  local known = redis.pcall('HMGET', run, 'callback', 'schedule', 'parent', 'children', 'place', 'waiting',
    'failed', 'finally', 'ends_as')
  local callback, schedule, parent, children, place, waiting, failed, finally, ends_as = unpack(known)
  return known, callback or schedule or children or place or waiting or failed or finally or ends_as, parent
end
