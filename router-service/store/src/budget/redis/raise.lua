-- ARGV: 5 the id; 6 step, by how much, ceiling, overage.

local id = ARGV[5]
local step, by, ceiling, overage = unpacked('>dddd', ARGV[6])
local hold, note = request(id)
if not hold then
  return answer(6, 0)
end
if step <= hold.step then
  return answer(1, 0)
end
if by > 0 and fenced_ms() > 0 then
  return answer(FENCED, fenced_ms())
end
local a = account(month)
if passes(a, by, ceiling, overage) then
  return answer(5, 0)
end
hold.amount, hold.step = hold.amount + by, step
put_hold(id, hold, note)
a.held, a.ceiling, a.is_changed = a.held + by, ceiling, true
return answer(0, 0)
