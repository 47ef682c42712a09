--- @use wake_nodes
-- As wake_nodes, of one node, which may be about the wait of this number.
local function wake_node(stream, execution_id, node_id, kind, payload, happened, number)
  local outcomes, decisions =
    wake_nodes(stream, execution_id, kind, { { node_id, payload, number } }, happened)
  return outcomes[1], decisions[1]
end
