-- What new executions of one workflow have in common: values of ARGV, `first` says where: group, now (ms),
-- definition (JSON), state to start in (RUNNING or PAUSED), plan, roots, labels (a line `name=value`
-- each), `concurrency` as the run says it, or empty, number of values of the run, the run, field and
-- value, number of nodes not yet staged, their ids.
local function read_making(first)
  local at = first + 9
  local last = at + ARGV[at - 1]
  local making = { group = ARGV[first], now_ms = ARGV[first + 1], definition = ARGV[first + 2],
    status = ARGV[first + 3], plan = ARGV[first + 4], roots = ARGV[first + 5],
    labels = ARGV[first + 6], concurrency = ARGV[first + 7], count = last - at, values = {},
    next = last + 1 + ARGV[last] }
  for one = at, making.next - 1 do
    if one ~= last then
      making.values[#making.values + 1] = ARGV[one]
    end
    if ARGV[one] == 'queues' and one < last and (one - at) % 2 == 0 then
      making.queues = ARGV[one + 1]
    end
  end
  return making
end
