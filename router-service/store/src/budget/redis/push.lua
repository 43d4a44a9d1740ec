-- What a router has booked and what it holds, after a loss. ARGV: 5 of each line and
-- month: TOTAL; 6 of each hold: the id, then its numbers, then its note.
-- Answers: the line, then of each total: up, down, told.

local TOTAL, HELD = '>sdddd', '>c36dddddddd'

-- Who knows another line has found a loss, be it after others went on.
if is_stale() and since == 0 then
  since = now
  call('HSET', KEYS[1], 'since', format('%d', since))
end
local all, at, current = { line }, 1, line
while at <= #ARGV[5] do
  local its_month, plus, minus, told
  line, its_month, plus, minus, told, at = unpacked(TOTAL, ARGV[5], at)
  accounts = {}
  local a = account(its_month)
  heal(a, plus, minus, told)
  write_accounts()
  all[#all + 1], all[#all + 2], all[#all + 3] = a.plus, a.minus, a.told
end
line, accounts, at = current, {}, 1
while at <= #ARGV[6] do
  local hold, id, life, length = { slot = slot_now }
  id, hold.amount, life, hold.tokens, hold.step, hold.micros, hold.used, hold.month, length, at =
    unpacked(HELD, ARGV[6], at)
  if call('EXISTS', prefix .. 'r:' .. id) == 0 then
    hold.expires = now + life
    put_hold(id, hold, string.sub(ARGV[6], at, at + length - 1))
    count(slot_now, 0, hold.tokens)
    local a = account(hold.month)
    a.held, a.is_changed = a.held + hold.amount, true
  end
  at = at + length
end
write_accounts()
return all
