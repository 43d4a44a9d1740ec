-- What granting and closing share. The same rules in Rust, with their reasons:
-- router-service/core/src/quota. Times are milliseconds of this server's clock;
-- all numbers are below 2^53.
--
-- KEYS[1] is weir:q:{tenant}:m. The tenant's other keys have its prefix, so they
-- are in the same slot of a cluster; they can't all be named beforehand, because
-- a lease alone knows which counters it is in. Several values in one are packed by
-- `struct`: numbers are doubles, eight bytes each, and need not be read from text.
--   m                    the marker: MARKER
--   c:<window>:<class>   a counter: <slot> = count; s = sum, lo, hi over all slots
--   l:<id>               a lease: granted, t, life; then LIMIT of each counter that
--                        it is in. Empty where it is closed
--
-- A call costs a microsecond here, and about the same what goes on between two of
-- them. So a counter is read by one and written by one: its slots are changed in
-- `held` and stored at the end. Tables are made as long as they usually become, and
-- functions that are rarely needed where they are, for each run makes all anew.

local MARKER = '>sdddsd' -- identity, leap, since, is fenced, epoch, seen
local LIMIT = '>sdd' -- <window>:<class>, window, part
local REMEMBERED_MS = 30000
local FENCED_WINDOW_MAX_MS = 120000
local LIFE_MAX_MS = 2000
-- Beyond its last slot, and what `seen` may be ahead by, a key stays that long.
local SLACK_MS = 2000
-- A counter's time to live is set anew once for so many slots.
local KEPT_SLOTS = 8
-- Over more slots than that, a counter gets a field that is longer than 64 bytes:
-- Redis then finds fields by hashing, not by going through all of up to 512.
local WIDE_SLOTS = 64

local call = redis.call
local prefix = string.sub(KEYS[1], 1, -2)
local now
-- When what this script may grant is used up, so that its slot is read at once.
local granted_until
local counters = {}

local function time_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What the marker holds; nothing where there is none.
local function read_marker()
  local text = call('GET', KEYS[1])
  if not text then
    return nil
  end
  local is_ours, identity, leap, since, fenced, epoch, seen = pcall(struct.unpack, MARKER, text)
  if not is_ours then
    return '', 0, 0, false, '', 0
  end
  return identity, leap, since, fenced == 1, epoch, seen
end

-- The counts of slots first to last.
local function counts(c, first, last)
  local names = {}
  for slot = first, last do
    names[#names + 1] = string.format('%d', slot)
  end
  local found = call('HMGET', c.key, unpack(names))
  for i = 1, #names do
    found[i] = c.held[first + i - 1] or tonumber(found[i]) or 0
  end
  return found, names
end

local function forget(c)
  call('DEL', c.key)
  c.sum, c.lo, c.hi, c.kept_hi, c.held = 0, 0, 0, 0, {}
end

-- Takes off what counts no more. Each slot is read once in its life, here.
local function expire(c)
  local over = math.floor(now / c.part)
  local farthest = now + c.window + LIFE_MAX_MS + c.part + SLACK_MS
  -- A slot that can't be yet is of before the clock went back: the fence of
  -- then covers it, and it would count until the clock is there again.
  local is_ahead = c.window <= FENCED_WINDOW_MAX_MS and c.hi * c.part > farthest
  if c.hi <= over or is_ahead then
    return forget(c)
  end
  while c.lo <= over do
    local last = math.min(over, c.lo + 255)
    local found, names = counts(c, c.lo, last)
    for _, n in ipairs(found) do
      c.sum = c.sum - n
    end
    call('HDEL', c.key, unpack(names))
    c.lo, c.is_changed = last + 1, true
  end
end

-- A counter, of which slots `a` and `b` are likely to be asked for.
local function counter(name, window, part, a, b)
  local c = counters[name]
  if c then
    return c
  end
  local key, next = prefix .. 'c:' .. name, a
  if granted_until then
    next = math.ceil((granted_until + window) / part)
  end
  a, b = a or next, b or next
  -- Redis writes a number by %.17g, which takes as long as a call.
  local format = string.format
  local next_name, a_name, b_name = format('%d', next), format('%d', a), format('%d', b)
  local found = call('HMGET', key, 's', next_name, a_name, b_name)
  local sum, lo, hi = 0, 0, 0
  if found[1] then
    sum, lo, hi = struct.unpack('>ddd', found[1])
  end
  c = {
    key = key, window = window, part = part,
    sum = sum, lo = lo, hi = hi, kept_hi = hi, is_changed = false,
    names = { [next] = next_name, [a] = a_name, [b] = b_name },
    held = {
      [next] = tonumber(found[2]) or 0, [a] = tonumber(found[3]) or 0,
      [b] = tonumber(found[4]) or 0,
    },
    changed = { [next] = false, [a] = false, [b] = false },
  }
  counters[name] = c
  if sum > 0 then
    expire(c)
  end
  return c
end

-- Counts so many more in a slot; `by` may be below 0, but no more is taken off than
-- is there.
local function change(c, slot, by)
  local held = c.held[slot]
  if not held then
    held = tonumber(call('HGET', c.key, slot)) or 0
  end
  if held + by < 0 then
    by = -held
  end
  if by == 0 then
    return
  end
  if by > 0 and c.sum == 0 then
    c.lo, c.hi = slot, slot
  elseif by > 0 then
    c.lo, c.hi = math.min(c.lo, slot), math.max(c.hi, slot)
  end
  c.held[slot], c.changed[slot] = held + by, true
  c.sum, c.is_changed = c.sum + by, true
end

-- Takes leases back, each once: what is spent moves to the slot of its last use.
-- They are packed: id, spent, age each.
local function close_all(leases)
  local at = 1
  while at < #leases do
    local id, spent, age
    id, spent, age, at = struct.unpack('>c32dd', leases, at)
    local key = prefix .. 'l:' .. id
    local lease = call('GET', key)
    if not lease then
      -- It may still be on its way: it must not be granted then.
      call('SET', key, '', 'PX', REMEMBERED_MS)
    elseif lease ~= '' then
      local granted, t, life, limit_at = struct.unpack('>ddd', lease)
      local used_by = t + life
      call('SET', key, '', 'PX', math.max(1, used_by + REMEMBERED_MS - now))
      local closed_at = t + math.min(age + math.floor(age / 499) + 1, life)
      while limit_at < #lease do
        local name, window, part
        name, window, part, limit_at = struct.unpack(LIMIT, lease, limit_at)
        local later = math.ceil((used_by + window) / part)
        local earlier = math.ceil((closed_at + window) / part)
        local c = counter(name, window, part, later, earlier)
        -- What is over was taken off with its slot.
        if later * part > now then
          change(c, later, -granted)
          -- A close alone keeps no `seen`: time may yet go back to where it counts.
          if earlier * part > now or not granted_until then
            change(c, earlier, math.min(spent, granted))
          end
        end
      end
    end
  end
end

-- Writes what this script changed of a counter.
local function write(c)
  if c.sum <= 0 then
    return forget(c)
  end
  -- The last slot, only now: what is taken off it is often added behind it. What
  -- was not read was not changed.
  while c.held[c.hi] == 0 and c.hi > c.lo do
    local first = math.max(c.lo, c.hi - 32)
    local found = counts(c, first, c.hi - 1)
    local i = #found
    while i > 1 and found[i] == 0 do
      i = i - 1
    end
    c.hi, c.held[first + i - 1] = first + i - 1, found[i]
  end
  local set = { 'HSET', c.key, 's', struct.pack('>ddd', c.sum, c.lo, c.hi), 0, 0, 0, 0, 0, 0 }
  local length = 4
  for slot, is_changed in pairs(c.changed) do
    if is_changed then
      -- A slot of which nothing is left goes when it is over.
      set[length + 1], set[length + 2] = c.names[slot] or slot, c.held[slot]
      length = length + 2
    end
  end
  local group = math.floor(c.hi / KEPT_SLOTS)
  local is_kept = group == math.floor(c.kept_hi / KEPT_SLOTS)
  if not is_kept and c.hi - c.lo > WIDE_SLOTS then
    set[length + 1], set[length + 2] = 'wide', string.rep('-', 65)
    length = length + 2
  end
  call(unpack(set, 1, length))
  if not is_kept then
    call('PEXPIRE', c.key, (group + 1) * KEPT_SLOTS * c.part - now + SLACK_MS)
    c.kept_hi = c.hi
  end
end

local function write_all()
  for _, c in pairs(counters) do
    if c.is_changed then
      c.is_changed = false
      write(c)
    end
  end
end

