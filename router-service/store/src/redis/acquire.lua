-- Closes leases, then grants one over all limits at once, or says when.
-- ARGV: 1 identity, 2 leap, 3 epoch for a new marker, 4 and 5 the bounds of TIME,
-- 6 the asker's epoch, 7 wanted, 8 gateways, 9 id, 10 life, 11 how long a fence
-- holds for these limits (-1: not at all), 12 limits, 13 closings; then requests,
-- window, part, class of each limit; then id, spent, age of each closing.
-- Answers: kind, a, b, epoch, TIME, then remaining and reset of each limit.

local DENIED, LEASE, FENCED, LEAPT, STALE = 0, 1, 2, 3, 4
-- Longer than any counter, and than any gateway tells an epoch.
local MARKER_MS = 87000000
-- Further back than that, TIME has leapt.
local BACK_MAX_MS = 1000
-- Further ahead than that, no slot is looked for.
local AHEAD_MAX = 1024

local time = time_ms()
if time < tonumber(ARGV[4]) or time > tonumber(ARGV[5]) then
  return { LEAPT, time, 0 }
end

local identity, leap, epoch = ARGV[1], tonumber(ARGV[2]), ARGV[6]
local marker = read_marker()
if not marker then
  -- An asker with an epoch was granted something here: that is lost.
  marker = { identity = identity, leap = leap, since = time, is_fenced = epoch ~= '',
    epoch = ARGV[3], seen = time }
else
  local is_same = marker.identity == identity
  if is_same and marker.leap > leap then
    return { STALE, marker.leap, 0 }
  end
  local is_back = marker.seen - time > BACK_MAX_MS
  local is_foreign = epoch ~= '' and epoch ~= marker.epoch and not marker.is_fenced
  if not is_same or marker.leap < leap or is_back or is_foreign then
    -- What was seen by a clock that went back is no bound.
    if is_back then
      marker.seen = time
    end
    marker = { identity = identity, leap = leap, since = math.max(time, marker.seen),
      is_fenced = true, epoch = ARGV[3], seen = marker.seen }
  end
end
now = math.max(time, marker.seen)
redis.call('SET', KEYS[1], marker.identity .. '|' .. marker.leap .. '|' .. marker.since .. '|'
  .. (marker.is_fenced and 1 or 0) .. '|' .. marker.epoch .. '|' .. now, 'PX', MARKER_MS)

local count = tonumber(ARGV[12])
close_all(14 + 4 * count, tonumber(ARGV[13]))

local limits = {}
for i = 14, 10 + 4 * count, 4 do
  limits[#limits + 1] = {
    requests = tonumber(ARGV[i]),
    counter = counter(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]),
    name = ARGV[i + 1] .. ':' .. ARGV[i + 2] .. ':' .. ARGV[i + 3],
  }
end

-- When at least one more may be granted under a limit, at the earliest.
local function free_at(limit)
  local c, left, at = limit.counter, limit.counter.sum, now
  local first, last = c.lo, math.min(c.hi, c.lo + AHEAD_MAX)
  while left >= limit.requests and first <= last do
    local held, names = counts(c, first, math.min(last, first + 63))
    for i, slot in ipairs(names) do
      if held[i] and left >= limit.requests then
        left, at = left - held[i], slot * c.part
      end
    end
    first = first + #names
  end
  return math.max(at, now)
end

local function decide()
  local known = redis.call('GET', prefix .. 'l:' .. ARGV[9])
  if known then
    local granted, life, closed = string.match(known, '^(%d+)|%d+|(%d+)|(%d)')
    -- A closed one was given up before it was asked for.
    if closed ~= '0' then
      return DENIED, 1, 0
    end
    return LEASE, tonumber(granted), tonumber(life)
  end
  local until_ms = marker.since + tonumber(ARGV[11])
  if marker.is_fenced and tonumber(ARGV[11]) >= 0 and until_ms > now then
    return FENCED, until_ms - now, 0
  end
  local free
  for _, limit in ipairs(limits) do
    local one = math.max(0, limit.requests - limit.counter.sum)
    free = math.min(free or one, one)
  end
  if not free or free == 0 then
    local at = now
    for _, limit in ipairs(limits) do
      at = math.max(at, free_at(limit))
    end
    return DENIED, math.max(1, at - now), 0
  end
  -- Half of a gateway's share, at least one.
  local share = math.max(1, math.floor(free / (2 * tonumber(ARGV[8]))))
  local n, life = math.min(share, free, tonumber(ARGV[7])), tonumber(ARGV[10])
  local lease = n .. '|' .. now .. '|' .. life .. '|0'
  for _, limit in ipairs(limits) do
    local c = limit.counter
    add(c, math.ceil((now + life + c.window) / c.part), n)
    lease = lease .. '|' .. limit.name
  end
  write_lease(ARGV[9], lease, now + life)
  return LEASE, n, life
end

local kind, a, b = decide()
store()
local answer = { kind, a, b, marker.epoch, time }
for _, limit in ipairs(limits) do
  local c = limit.counter
  answer[#answer + 1] = math.max(0, limit.requests - c.sum)
  answer[#answer + 1] = math.max(0, c.hi * c.part - now)
end
return answer
