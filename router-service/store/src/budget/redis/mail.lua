-- The outbox of a tenant, the oldest first. KEYS[1] is weir:b:{tenant}:t. ARGV: 1 how
-- many at the most. Answers name and text of each.

local prefix = string.sub(KEYS[1], 1, -2)
local names = redis.call('ZRANGE', prefix .. 'q', 0, ARGV[1] - 1)
if #names == 0 then
  return {}
end
local texts, all = redis.call('HMGET', prefix .. 'm', unpack(names)), {}
for i, name in ipairs(names) do
  all[2 * i - 1], all[2 * i] = name, texts[i]
end
return all
