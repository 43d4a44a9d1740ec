-- Closes leases, then grants one over all limits at once, or says when.
-- ARGV: 1 identity, 2 epoch for a new marker, 3 the asker's epoch, 4 id, 5 numbers:
-- leap, the two bounds of TIME, wanted, gateways, life, how long a fence holds for
-- these limits (-1: not at all), then how many requests each limit allows; 6 LIMIT
-- of each, 7 closings.
-- Answers: kind, a, b, epoch, TIME, then remaining and reset of each limit.

local DENIED, LEASE, FENCED, LEAPT, STALE = 0, 1, 2, 3, 4
-- Longer than any counter, and than any gateway tells an epoch.
local MARKER_MS = '90000000'
-- Further back than that, TIME has leapt.
local BACK_MAX_MS = 1000
-- Further ahead than that, no slot is looked for.
local AHEAD_MAX = 1024

local identity, asker_epoch = ARGV[1], ARGV[3]
local leap, low, high, wanted, gateways, life, fence_ms, requests_at =
  struct.unpack('>ddddddd', ARGV[5])
local time = time_ms()
if time < low or time > high then
  return { LEAPT, time, 0 }
end

local its_identity, its_leap, since, is_fenced, epoch, seen = read_marker()
if not its_identity then
  -- An asker with an epoch was granted something here: that is lost. So it is where
  -- the router knows of a loss, which it says by an epoch that is none.
  since, is_fenced, epoch, seen = time, asker_epoch ~= '', ARGV[2], time
else
  local is_same = its_identity == identity
  if is_same and its_leap > leap then
    return { STALE, its_leap, 0 }
  end
  local is_back = seen - time > BACK_MAX_MS
  local is_foreign = asker_epoch ~= '' and asker_epoch ~= '!' and asker_epoch ~= epoch
    and not is_fenced
  if not is_same or its_leap < leap or is_back or is_foreign then
    -- What was seen by a clock that went back is no bound.
    if is_back then
      seen = time
    end
    since, is_fenced, epoch = math.max(time, seen), true, ARGV[2]
  end
end
now = math.max(time, seen)
local marker = struct.pack(MARKER, identity, leap, since, is_fenced and 1 or 0, epoch, now)
call('SET', KEYS[1], marker, 'PX', MARKER_MS)

granted_until = now + life
close_all(ARGV[7])

-- Of each limit: its counter, and how many requests it allows.
local limits, requests = { 0 }, { 0 }
-- How much is left of all of them.
local free = 0
local limit_at, count = 1, 0
while limit_at < #ARGV[6] do
  local name, window, part, most
  name, window, part, limit_at = struct.unpack(LIMIT, ARGV[6], limit_at)
  most, requests_at = struct.unpack('>d', ARGV[5], requests_at)
  local c = counter(name, window, part)
  local one = math.max(0, most - c.sum)
  free = count == 0 and one or math.min(free, one)
  count = count + 1
  limits[count], requests[count] = c, most
end

-- Half of a gateway's share, at least one.
local granted = math.min(math.max(1, math.floor(free / (2 * gateways))), free, wanted)
local fenced_until = is_fenced and fence_ms >= 0 and since + fence_ms or 0
local may_grant = granted > 0 and fenced_until <= now
local function count_granted(sign)
  for i = 1, count do
    local c = limits[i]
    change(c, math.ceil((granted_until + c.window) / c.part), sign * granted)
  end
end

local lease_key = prefix .. 'l:' .. ARGV[4]
local kind, a, b = LEASE, granted, life
-- It is counted before there is a lease: what fails between may cost some of the
-- limit, and never admits more. One call then writes the lease, and finds it where
-- it was asked for before.
if may_grant then
  count_granted(1)
end
write_all()
if not (may_grant and call('SET', lease_key,
    struct.pack('>ddd', granted, now, life) .. ARGV[6], 'NX', 'PX', life + REMEMBERED_MS)) then
  if may_grant then
    count_granted(-1)
    write_all()
  end

  -- When at least one more may be granted under all limits, at the earliest.
  local function free_at()
    local at = now
    for i = 1, count do
      local c, most = limits[i], requests[i]
      local left, first, last = c.sum, c.lo, math.min(c.hi, c.lo + AHEAD_MAX)
      while left >= most and first <= last do
        local found = counts(c, first, math.min(last, first + 63))
        for j, n in ipairs(found) do
          if n > 0 and left >= most then
            left, at = left - n, math.max(at, (first + j - 1) * c.part)
          end
        end
        first = first + #found
      end
    end
    return at
  end

  local known = call('GET', lease_key)
  if known == '' then
    -- Given up before it was asked for.
    kind, a, b = DENIED, 1, 0
  elseif known then
    kind, a, b = LEASE, struct.unpack('>dxxxxxxxxd', known)
  elseif fenced_until > now then
    kind, a, b = FENCED, fenced_until - now, 0
  else
    kind, a, b = DENIED, math.max(1, free_at() - now), 0
  end
end

local answer = { kind, a, b, epoch, time, 0, 0 }
for i = 1, count do
  local c = limits[i]
  answer[4 + 2 * i] = math.max(0, requests[i] - c.sum)
  answer[5 + 2 * i] = math.max(0, c.hi * c.part - now)
end
-- Where no limit applies, there is none to tell of.
return count > 0 and answer or { kind, a, b, epoch, time }
