-- True for an execution that has been triggered and has not ended.
local function is_live(status)
  return status == 'RUNNING' or status == 'PAUSED'
end
