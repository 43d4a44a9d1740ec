-- ARGV: 5 how many at the most. The number: twice how many were swept, and one more
-- where nothing of the tenant's is left to be swept or told.

local swept = sweep(tonumber(ARGV[5]))
local is_idle = call('EXISTS', prefix .. 'x', prefix .. 'q') == 0
return answer(0, swept * 2 + (is_idle and 1 or 0))
