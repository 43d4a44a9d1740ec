-- Closes leases, then grants one over all limits at once, or says when.
-- ARGV: 1 identity, 2 epoch for a new marker, 3 the asker's epoch, 4 id,
-- 5 numbers: leap, the two bounds of TIME, wanted, gateways, life, how long a fence
-- holds for these limits (-1: not at all), how many limits; then requests, window,
-- part of each limit; 6 closings; then the name of each limit's counter. Numbers are
-- doubles, eight bytes each: to read them from text takes a third of a call each.
-- Answers: kind, a, b, epoch, TIME, then remaining and reset of each limit.

local DENIED, LEASE, FENCED, LEAPT, STALE = 0, 1, 2, 3, 4
-- Longer than any counter, and than any gateway tells an epoch.
local MARKER_MS = '90000000'
-- Further back than that, TIME has leapt.
local BACK_MAX_MS = 1000
-- Further ahead than that, no slot is looked for.
local AHEAD_MAX = 1024

local identity, new_epoch, asker_epoch = ARGV[1], ARGV[2], ARGV[3]
local leap, low, high, wanted, gateways, life, held_ms, count, at =
  struct.unpack('>dddddddd', ARGV[5])
local time = time_ms()
if time < low or time > high then
  return { LEAPT, time, 0 }
end

local its_identity, its_leap, since, is_fenced, epoch, seen = read_marker()
if not its_identity then
  -- An asker with an epoch was granted something here: that is lost.
  since, is_fenced, epoch, seen = time, asker_epoch ~= '', new_epoch, time
else
  local is_same = its_identity == identity
  if is_same and its_leap > leap then
    return { STALE, its_leap, 0 }
  end
  local is_back = seen - time > BACK_MAX_MS
  local is_foreign = asker_epoch ~= '' and asker_epoch ~= epoch and not is_fenced
  if not is_same or its_leap < leap or is_back or is_foreign then
    -- What was seen by a clock that went back is no bound.
    if is_back then
      seen = time
    end
    since, is_fenced, epoch = max(time, seen), true, new_epoch
  end
end
now = max(time, seen)
call('SET', KEYS[1], pack(identity, leap, since, is_fenced, epoch, now), 'PX', MARKER_MS)

granted_until = now + life
close_all(ARGV[6])

local limits = {}
for i = 1, count do
  local requests, window, part
  requests, window, part, at = struct.unpack('>ddd', ARGV[5], at)
  limits[i] = { requests = requests, counter = counter(ARGV[6 + i], window, part) }
end

-- When at least one more may be granted under a limit, at the earliest.
local function free_at(limit)
  local c, left, free = limit.counter, limit.counter.sum, now
  local first, last = c.lo, min(c.hi, c.lo + AHEAD_MAX)
  while left >= limit.requests and first <= last do
    local found = counts(c, first, min(last, first + 63))
    for i, n in ipairs(found) do
      if n > 0 and left >= limit.requests then
        left, free = left - n, (first + i - 1) * c.part
      end
    end
    first = first + #found
  end
  return max(free, now)
end

local lease_key = prefix .. 'l:' .. ARGV[4]

-- What came of this lease when it was asked for before, or nothing.
local function known()
  local lease = call('GET', lease_key)
  if not lease then
    return nil
  end
  -- A closed one was given up before it was asked for.
  if lease == CLOSED then
    return DENIED, 1, 0
  end
  local granted, _, its_life = unpack_packed(lease)
  return LEASE, granted, its_life
end

-- Why nothing is granted, or nothing; then how much may be.
local function refused()
  local until_ms = since + held_ms
  if is_fenced and held_ms >= 0 and until_ms > now then
    return FENCED, until_ms - now
  end
  local free
  for _, limit in ipairs(limits) do
    local one = max(0, limit.requests - limit.counter.sum)
    free = min(free or one, one)
  end
  if free and free > 0 then
    return nil, free
  end
  local free_ms = now
  for _, limit in ipairs(limits) do
    free_ms = max(free_ms, free_at(limit))
  end
  return DENIED, max(1, free_ms - now)
end

local function decide()
  local why, free = refused()
  if why then
    local kind, a, b = known()
    if kind then
      return kind, a, b
    end
    return why, free, 0
  end
  -- Half of a gateway's share, at least one.
  local share = max(1, floor(free / (2 * gateways)))
  local n = min(share, free, wanted)
  local lease = { n, now, life }
  for i, limit in ipairs(limits) do
    local c = limit.counter
    lease[3 * i + 1], lease[3 * i + 2], lease[3 * i + 3] = ARGV[6 + i], c.window, c.part
  end
  -- One call to look whether it is known, and to write it.
  if not call('SET', lease_key, pack(unpack(lease)), 'NX', 'PX', life + REMEMBERED_MS) then
    return known()
  end
  for _, limit in ipairs(limits) do
    local c = limit.counter
    add(c, ceil((granted_until + c.window) / c.part), n)
  end
  return LEASE, n, life
end

local kind, a, b = decide()
write_all()
local answer = { kind, a, b, epoch, time }
for _, limit in ipairs(limits) do
  local c = limit.counter
  answer[#answer + 1] = max(0, limit.requests - c.sum)
  answer[#answer + 1] = max(0, c.hi * c.part - now)
end
return answer
