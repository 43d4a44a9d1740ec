-- Takes entries out of the outbox. KEYS[1] is weir:b:{tenant}:t. ARGV: their names.
-- Answers 1 for each that was there.

local prefix = string.sub(KEYS[1], 1, -2)
local all = {}
for i, name in ipairs(ARGV) do
  all[i] = redis.call('HDEL', prefix .. 'm', name)
  redis.call('ZREM', prefix .. 'q', name)
end
return all
