-- The stream of a queue, and what is in it: of the full name of an entry or a node, `queue/id`, or the id
-- alone for the default queue, whose stream is the one given.
local function place_of(stream, name)
  local slash = string.find(name, '/', 1, true)
  if slash then
    return stream .. ':' .. string.sub(name, 1, slash - 1), string.sub(name, slash + 1)
  end
  return stream, name
end
