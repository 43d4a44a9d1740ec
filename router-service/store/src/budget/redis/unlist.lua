-- Takes a tenant off the list, unless a router has listed it anew. ARGV: 1 the tenant,
-- 2 when it was listed at the latest.

local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if at and tonumber(at) <= tonumber(ARGV[2]) then
  return redis.call('ZREM', KEYS[1], ARGV[1])
end
return 0
