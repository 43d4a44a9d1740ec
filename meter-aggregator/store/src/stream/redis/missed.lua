-- How many entries are gone that were never delivered to the group: somebody else trimmed
-- or deleted them. Known where all that is left is new to the group, and Redis counts.
local key, name = KEYS[1], ARGV[1]
local function members(flat)
  local member = {}
  for i = 1, #flat, 2 do member[flat[i]] = flat[i + 1] end
  return member
end
local group = nil
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
  local member = members(flat)
  if member['name'] == name then group = member end
end
if group == nil or type(group['entries-read']) ~= 'number' then return 0 end
local length = redis.call('XLEN', key)
local new = redis.call('XRANGE', key, '-', group['last-delivered-id'], 'COUNT', 1)
if #new > 0 then return 0 end
local stream = members(redis.call('XINFO', 'STREAM', key))
local missed = stream['entries-added'] - group['entries-read'] - length
if missed <= 0 then return 0 end
-- So that it is told once: what is gone counts as read.
redis.call('XGROUP', 'SETID', key, name, group['last-delivered-id'],
  'ENTRIESREAD', group['entries-read'] + missed)
return missed
