-- What granting and closing share. The same rules in Rust, with their reasons:
-- router-service/core/src/quota. Times are milliseconds of this server's clock;
-- all numbers are below 2^53.
--
-- KEYS[1] is weir:q:{tenant}:m. The tenant's other keys have its prefix, so they
-- are in the same slot of a cluster; they can't all be named beforehand, because
-- a lease alone knows which counters it is in. Several values in one are packed by
-- cmsgpack, which is quicker than text and gives numbers back as numbers.
--   m                    the marker: identity, leap, since, is_fenced, epoch, seen
--   c:<window>:<class>   a counter: <slot> = count; s = sum, lo, hi over all slots
--   l:<id>               a lease: granted, t, life; name, window, part of each
--                        counter that it is in. Empty where it is closed
--
-- What costs here are the calls, a microsecond each. So a counter is read by one
-- and written by one: its slots are changed in `held` and stored at the end.

local REMEMBERED_MS = 30000
local FENCED_WINDOW_MAX_MS = 120000
local LIFE_MAX_MS = 2000
-- Beyond its last slot, and what `seen` may be ahead by, a key stays that long.
local SLACK_MS = 2000
-- A counter's time to live is set anew once for so many slots.
local KEPT_SLOTS = 8
-- Of a longer value than 64 bytes, Redis finds a hash's fields by hashing; without,
-- by going through up to 512 of them. It takes more memory, so few slots have none.
local WIDE_SLOTS = 64
local WIDE = string.rep('-', 65)
local CLOSED = ''

local call, pack, unpack_packed = redis.call, cmsgpack.pack, cmsgpack.unpack
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max

local prefix = string.sub(KEYS[1], 1, -2)
local now
-- When what this script may grant is used up, so that its slot is read at once.
local granted_until
local counters = {}

local function time_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + floor(time[2] / 1000)
end

-- The name of a slot. Redis writes a number by %.17g, which takes as long as a call.
local names = {}
local function name_of(slot)
  local name = names[slot]
  if not name then
    name = string.format('%d', slot)
    names[slot] = name
  end
  return name
end

-- The counts of slots first to last.
local function counts(c, first, last)
  local fields = {}
  for slot = first, last do
    fields[#fields + 1] = name_of(slot)
  end
  local found = call('HMGET', c.key, unpack(fields))
  for i = 1, #fields do
    found[i] = c.held[first + i - 1] or tonumber(found[i]) or 0
  end
  return found
end

local function forget(c)
  call('DEL', c.key)
  c.sum, c.lo, c.hi, c.kept_hi, c.held = 0, 0, 0, 0, {}
end

-- Takes off what counts no more. Each slot is read once in its life, here.
local function expire(c)
  local over = floor(now / c.part)
  local farthest = now + c.window + LIFE_MAX_MS + c.part + SLACK_MS
  -- A slot that can't be yet is of before the clock went back: the fence of
  -- then covers it, and it would count until the clock is there again.
  local is_ahead = c.window <= FENCED_WINDOW_MAX_MS and c.hi * c.part > farthest
  if c.hi <= over or is_ahead then
    return forget(c)
  end
  while c.lo <= over do
    local last = min(over, c.lo + 255)
    local gone = {}
    for i, n in ipairs(counts(c, c.lo, last)) do
      if n > 0 then
        c.sum = c.sum - n
        gone[#gone + 1] = name_of(c.lo + i - 1)
      end
    end
    if #gone > 0 then
      call('HDEL', c.key, unpack(gone))
    end
    c.lo, c.is_changed = last + 1, true
  end
end

-- A counter, of which slots `a` and `b` are likely to be asked for.
local function counter(name, window, part, a, b)
  local c = counters[name]
  if c then
    return c
  end
  local key = prefix .. 'c:' .. name
  local next = granted_until and ceil((granted_until + window) / part) or a
  a, b = a or next, b or next
  local found = call('HMGET', key, 's', name_of(next), name_of(a), name_of(b))
  local sum, lo, hi = 0, 0, 0
  if found[1] then
    sum, lo, hi = unpack_packed(found[1])
  end
  c = {
    key = key, window = window, part = part,
    sum = sum, lo = lo, hi = hi, kept_hi = hi, changed = {},
    held = {
      [next] = tonumber(found[2]) or 0, [a] = tonumber(found[3]) or 0,
      [b] = tonumber(found[4]) or 0,
    },
  }
  counters[name] = c
  if sum > 0 then
    expire(c)
  end
  return c
end

local function held(c, slot)
  local n = c.held[slot]
  if not n then
    n = tonumber(call('HGET', c.key, name_of(slot))) or 0
    c.held[slot] = n
  end
  return n
end

local function change(c, slot, by)
  c.held[slot] = held(c, slot) + by
  c.sum, c.changed[slot], c.is_changed = c.sum + by, true, true
end

local function add(c, slot, n)
  if n <= 0 or slot * c.part <= now then
    return
  end
  if c.sum == 0 then
    c.lo, c.hi = slot, slot
  else
    c.lo, c.hi = min(c.lo, slot), max(c.hi, slot)
  end
  change(c, slot, n)
end

local function subtract(c, slot, n)
  n = min(n, held(c, slot))
  if n > 0 then
    change(c, slot, -n)
  end
end

-- The highest slot up to `hi` that holds something.
local function highest(c)
  local last = c.hi
  -- What was not read was not changed.
  if c.held[last] ~= 0 then
    return last
  end
  while last > c.lo do
    local first = max(c.lo, last - 32)
    local found = counts(c, first, last - 1)
    for i = #found, 1, -1 do
      if found[i] > 0 then
        return first + i - 1
      end
    end
    last = first
  end
  return c.lo
end

-- Writes what this script changed of a counter.
local function write(c)
  if c.sum <= 0 then
    return forget(c)
  end
  -- Only now: what is taken off the last slot is often added behind it.
  c.hi = highest(c)
  local group = floor(c.hi / KEPT_SLOTS)
  local is_kept = group == floor(c.kept_hi / KEPT_SLOTS)
  local set, gone = { 's', pack(c.sum, c.lo, c.hi) }, {}
  for slot in pairs(c.changed) do
    local n = c.held[slot]
    if n == 0 then
      gone[#gone + 1] = name_of(slot)
    elseif n then
      set[#set + 1] = name_of(slot)
      set[#set + 1] = n
    end
  end
  if not is_kept and c.hi - c.lo > WIDE_SLOTS then
    set[#set + 1] = 'wide'
    set[#set + 1] = WIDE
  end
  call('HSET', c.key, unpack(set))
  if #gone > 0 then
    call('HDEL', c.key, unpack(gone))
  end
  if not is_kept then
    call('PEXPIRE', c.key, (group + 1) * KEPT_SLOTS * c.part - now + SLACK_MS)
  end
end

local function write_all()
  for _, c in pairs(counters) do
    if c.is_changed then
      write(c)
    end
  end
end

-- Takes a lease back, once: what is spent moves to the slot of its last use.
local function close(id, spent, age)
  local key = prefix .. 'l:' .. id
  local text = call('GET', key)
  if not text then
    -- It may still be on its way: it must not be granted then.
    call('SET', key, CLOSED, 'PX', REMEMBERED_MS)
    return
  end
  if text == CLOSED then
    return
  end
  local lease = { unpack_packed(text) }
  local granted, t, life = lease[1], lease[2], lease[3]
  local used_by = t + life
  call('SET', key, CLOSED, 'PX', max(1, used_by + REMEMBERED_MS - now))
  spent = min(spent, granted)
  local closed_at = t + min(age + floor(age / 499) + 1, life)
  for i = 4, #lease, 3 do
    local window, part = lease[i + 1], lease[i + 2]
    local later, earlier = ceil((used_by + window) / part), ceil((closed_at + window) / part)
    local c = counter(lease[i], window, part, later, earlier)
    -- What is over was taken off with its slot.
    if later * part > now then
      subtract(c, later, granted)
      add(c, earlier, spent)
    end
  end
end

-- Closes the leases that are packed into a text: id, spent, age each.
local function close_all(text)
  local at = 1
  while at < #text do
    local id, spent, age
    id, spent, age, at = struct.unpack('>c32dd', text, at)
    close(id, spent, age)
  end
end

-- What the marker holds, or nothing.
local function read_marker()
  local text = call('GET', KEYS[1])
  if text then
    return unpack_packed(text)
  end
end

