-- True for a node that has an entry in the stream.
local function is_outstanding(state)
  return state == 'QUEUED' or state == 'RUNNING'
end
