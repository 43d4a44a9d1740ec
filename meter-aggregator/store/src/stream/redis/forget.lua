-- Drops the group's consumers that read nothing for ARGV[2] ms and have nothing to
-- acknowledge: with a consumer goes what it has pending. ARGV[3] stays.
local key, group = KEYS[1], ARGV[1]
local gone = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
  local member = {}
  for i = 1, #consumer, 2 do member[consumer[i]] = consumer[i + 1] end
  local name = member['name']
  if name ~= ARGV[3] and member['pending'] == 0 and member['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', key, group, name)
    gone = gone + 1
  end
end
return gone
