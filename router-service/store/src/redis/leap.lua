-- Counts the leaps of TIME: at least ARGV[1]. Routers that see the same leap ask
-- for the same number, so it is counted once.

local known = tonumber(redis.call('GET', KEYS[1])) or 0
local count = math.max(known, tonumber(ARGV[1]))
if count ~= known then
  redis.call('SET', KEYS[1], count)
end
return count
