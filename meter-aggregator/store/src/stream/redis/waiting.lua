-- How many entries the group has not acknowledged, and the id of the first of them or ''.
local key, name = KEYS[1], ARGV[1]
if redis.call('EXISTS', key) == 0 then return {0, ''} end
local entries, from, first = redis.call('XLEN', key), '-', ''
for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
  local member = {}
  for i = 1, #group, 2 do member[group[i]] = group[i + 1] end
  if member['name'] == name then
    from = '(' .. member['last-delivered-id']
    -- Without a lag somebody deleted entries, and those that are there count.
    if type(member['lag']) == 'number' then entries = member['lag'] + member['pending'] end
    if member['pending'] > 0 then first = redis.call('XPENDING', key, name)[2] end
  end
end
if first == '' and entries > 0 then
  local next = redis.call('XRANGE', key, from, '+', 'COUNT', 1)[1]
  if next then first = next[1] end
end
return {entries, first}
