#!lua flags=allow-oom
-- Takes out of the list of names what is of no execution any more, or of one of another name.
--
-- KEYS  1 names (zset)
-- ARGV  1… members: a name, a zero byte and the id of an execution
-- RETURNS how many
local struck = 0
for _, member in ipairs(ARGV) do
  local name, execution_id = string.sub(member, 1, -26), string.sub(member, -24)
  local prefix = 'workflow:' .. execution_id
  local said = redis.call('EXISTS', prefix .. ':status') == 1 and redis.pcall('HGET', prefix .. ':run', 'name')
  if said ~= name or string.byte(member, -25) ~= 0 then
    struck = struck + redis.call('ZREM', KEYS[1], member)
  end
end
return struck
