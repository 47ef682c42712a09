-- What an event of a failure says besides, on a line of its own, as JSON: the name of the workflow and
-- the error, where there is one.
local function failure_text(run, error)
  local name = redis.pcall('HGET', run, 'name')
  return '\n' .. cjson.encode({
    name = type(name) == 'string' and name or nil,
    error = type(error) == 'string' and error or nil,
  })
end
