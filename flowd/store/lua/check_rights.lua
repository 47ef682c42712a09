#!lua flags=no-writes,allow-oom
-- Which of these commands the user who asks may not run, and which there are not under these names.
-- Changes nothing.
--
-- KEYS none: they stand in the commands, and are not touched
-- ARGV commands, each as one would type it
-- RETURNS those that are refused, with their names and all; and the names the server does not know
--
-- Asked of the server, because who has too few rights may not look at them either (ACL GETUSER).
local refused, unknown = {}, {}
for _, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%S+') do
    words[#words + 1] = word
  end
  local is_known, may = pcall(redis.acl_check_cmd, unpack(words))
  if not is_known then
    unknown[#unknown + 1] = words[1]
  elseif not may then
    refused[#refused + 1] = command
  end
end
return {refused, unknown}
