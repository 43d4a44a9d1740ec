-- ARGV: 5 the id; 6 micros, tokens, ceiling.

local id = ARGV[5]
local micros, tokens, ceiling = unpacked('>ddd', ARGV[6])
local hold, other = request(id)
if other == '2' then
  return answer(3, 0)
end
local a = account(month)
a.ceiling, a.is_changed = ceiling, true
local kind, slot, taken = 2, 0, 0
if hold then
  kind, slot, taken = 0, hold.slot, hold.tokens
  a.held = math.max(0, a.held - hold.amount)
  book(a, micros)
  call('ZREM', prefix .. 'x', id)
elseif other then
  local swept
  kind, swept, taken, slot = 1, unpacked(SWEPT, other, 2)
  book(a, micros - swept)
else
  book(a, micros)
end
correct(slot, taken, tokens)
call('SET', prefix .. 'r:' .. id, '2', 'PX', REMEMBERED_MS)
tell(a)
return answer(kind, 0)
