#!lua flags=no-writes,allow-oom
-- Which of these commands the user who asks may not run. Changes nothing.
--
-- KEYS none: they stand in the commands, and are not touched
-- ARGV commands, each as one would type it
-- RETURNS those that are refused, with their names and all
--
-- Asked of the server, because who has too few rights may not look at them either (ACL GETUSER).
local refused = {}
for _, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%S+') do
    words[#words + 1] = word
  end
  if not redis.acl_check_cmd(unpack(words)) then
    refused[#refused + 1] = command
  end
end
return refused
