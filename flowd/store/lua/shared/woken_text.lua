-- What the event of a node that was woken says: by what.
local function woken_text(execution_id, node_id, decision)
  local woken_by = string.match(decision, '^%d+ (%S+)')
  return execution_id .. ' ' .. node_id .. '\n' .. cjson.encode({ woken_by = woken_by })
end
