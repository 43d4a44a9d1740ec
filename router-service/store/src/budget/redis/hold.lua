-- ARGV: 5 the id; 6 amount, tokens, life, not_from, ceiling, overage, tokens a minute,
-- in flight (-1: no bound), progress in micros and in tokens; 7 the note.

local id = ARGV[5]
local amount, tokens, life, not_from, ceiling, overage, per_minute, most_in_flight, micros, used =
  unpacked('>dddddddddd', ARGV[6])

-- When so many more are within the limit; -1 where they never are.
local function free_in_ms()
  if tokens > per_minute then
    return -1
  end
  local left, at = sum, now
  for _, slot in ipairs((slots())) do
    if left + tokens <= per_minute then
      break
    end
    left, at = left - slot[2], slot[1] * SLOT_MS
  end
  return at - now
end

if call('EXISTS', prefix .. 'r:' .. id) == 1 then
  return answer(1, 0)
end
if amount > 0 and fenced_ms() > 0 then
  return answer(FENCED, fenced_ms())
end
sweep(4)
local a = account(month)
if most_in_flight >= 0 and in_flight() >= most_in_flight then
  return answer(2, 0)
end
if per_minute >= 0 and sum + tokens > per_minute then
  return answer(3, free_in_ms())
end
if not_from >= 0 and a.spend >= not_from then
  return answer(4, 0)
end
if passes(a, amount, ceiling, overage) then
  return answer(5, 0)
end
count(slot_now, 0, tokens)
put_hold(id, {
  amount = amount, expires = now + life, tokens = tokens, slot = slot_now, step = 0,
  micros = micros, used = used, month = month,
}, ARGV[7])
a.held, a.ceiling, a.is_changed = a.held + amount, ceiling, true
return answer(0, 0)
