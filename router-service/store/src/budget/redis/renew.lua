-- ARGV: 5 the id; 6 life, progress in micros and in tokens; 7 the note.

local life, micros, used = unpacked('>ddd', ARGV[6])
local hold = request(ARGV[5])
if not hold then
  return answer(6, 0)
end
hold.expires, hold.micros, hold.used = now + life, micros, used
put_hold(ARGV[5], hold, ARGV[7])
return answer(0, 0)
