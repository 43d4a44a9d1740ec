-- Drops the entries that every group has read and acknowledged; gives how many. Nothing as
-- long as the group ARGV[1] is not there: it has read nothing.
local function parts(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  return ms, sequence
end
-- Ids have more digits than a number of Lua holds.
local function is_less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end
local function is_before(a, b)
  local ams, asequence = parts(a)
  local bms, bsequence = parts(b)
  if ams ~= bms then return is_less(ams, bms) end
  return is_less(asequence, bsequence)
end
local function after(id)
  local ms, sequence = parts(id)
  local number = tonumber(sequence)
  if number >= 9007199254740991 then return id end
  return ms .. '-' .. string.format('%.0f', number + 1)
end

local key = KEYS[1]
if redis.call('EXISTS', key) == 0 then return 0 end
local needed, is_there = nil, false
for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
  local member = {}
  for i = 1, #group, 2 do member[group[i]] = group[i + 1] end
  if member['name'] == ARGV[1] then is_there = true end
  local first = after(member['last-delivered-id'])
  if member['pending'] > 0 then
    first = redis.call('XPENDING', key, member['name'])[2]
  end
  if needed == nil or is_before(first, needed) then needed = first end
end
if not is_there then return 0 end
return redis.call('XTRIM', key, 'MINID', needed)
