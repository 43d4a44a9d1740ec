-- What granting and closing share. The same rules in Rust, with their reasons:
-- router-service/core/src/quota. Times are milliseconds of this server's clock;
-- all numbers are below 2^53.
--
-- KEYS[1] is weir:q:{tenant}:m. The tenant's other keys have its prefix, so they
-- are in the same slot of a cluster; they can't all be named beforehand, because
-- a lease alone knows which counters it is in.
--   m                    the marker: identity|leap|since|fenced|epoch|seen
--   c:<window>:<class>   a counter: <slot> = count; sum, lo, hi over all slots
--   l:<id>               a lease: granted|t|life|closed, |window:part:class each

local REMEMBERED_MS = 30000
local FENCED_WINDOW_MAX_MS = 120000
local LIFE_MAX_MS = 2000
-- Beyond its last slot, and what `seen` may be ahead by, a key stays that long.
local SLACK_MS = 2000

local prefix = string.sub(KEYS[1], 1, -2)
local now
local counters = {}

local function time_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The counts of slots first to last, nil or false where there is none.
local function counts(c, first, last)
  local names = {}
  for slot = first, last do
    names[#names + 1] = slot
  end
  return redis.call('HMGET', c.key, unpack(names)), names
end

local function forget(c)
  redis.call('DEL', c.key)
  c.sum, c.lo, c.hi, c.kept_hi = 0, 0, 0, nil
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
    local held, names = counts(c, c.lo, last)
    local gone = {}
    for i, n in ipairs(names) do
      if held[i] then
        c.sum = c.sum - held[i]
        gone[#gone + 1] = n
      end
    end
    if #gone > 0 then
      redis.call('HDEL', c.key, unpack(gone))
    end
    c.lo, c.is_changed = last + 1, true
  end
end

local function counter(window, part, class)
  local key = prefix .. 'c:' .. window .. ':' .. class
  local c = counters[key]
  if not c then
    local all = redis.call('HMGET', key, 'sum', 'lo', 'hi')
    c = {
      key = key, window = tonumber(window), part = tonumber(part),
      sum = tonumber(all[1]) or 0, lo = tonumber(all[2]) or 0, hi = tonumber(all[3]) or 0,
    }
    c.kept_hi = c.hi
    counters[key] = c
    if c.sum > 0 then
      expire(c)
    end
  end
  return c
end

local function add(c, slot, n)
  if n <= 0 or slot * c.part <= now then
    return
  end
  redis.call('HINCRBY', c.key, slot, n)
  if c.sum == 0 then
    c.lo, c.hi = slot, slot
  else
    c.lo, c.hi = math.min(c.lo, slot), math.max(c.hi, slot)
  end
  c.sum, c.is_changed = c.sum + n, true
end

-- The highest slot below hi that holds something.
local function next_lower(c)
  local last = c.hi - 1
  while last >= c.lo do
    local first = math.max(c.lo, last - 31)
    local held = counts(c, first, last)
    for i = last - first + 1, 1, -1 do
      if held[i] then
        return first + i - 1
      end
    end
    last = first - 1
  end
  return c.lo
end

local function subtract(c, slot, n)
  local held = tonumber(redis.call('HGET', c.key, slot)) or 0
  n = math.min(n, held)
  if n <= 0 then
    return
  end
  c.sum, c.is_changed = c.sum - n, true
  if c.sum <= 0 then
    forget(c)
  elseif n < held then
    redis.call('HINCRBY', c.key, slot, -n)
  else
    redis.call('HDEL', c.key, slot)
    if slot == c.hi then
      c.hi = next_lower(c)
    end
  end
end

-- Writes what this script changed of counters beside their slots.
local function store()
  for _, c in pairs(counters) do
    if c.is_changed and c.sum > 0 then
      redis.call('HSET', c.key, 'sum', c.sum, 'lo', c.lo, 'hi', c.hi)
      if c.hi ~= c.kept_hi then
        redis.call('PEXPIRE', c.key, c.hi * c.part - now + SLACK_MS)
      end
    end
  end
end

local function write_lease(id, lease, end_ms)
  redis.call('SET', prefix .. 'l:' .. id, lease, 'PX', math.max(1, end_ms + REMEMBERED_MS - now))
end

-- Takes a lease back, once: what is spent moves to the slot of its last use.
local function close(id, spent, age)
  local lease = redis.call('GET', prefix .. 'l:' .. id)
  if not lease then
    -- It may still be on its way: it must not be granted then.
    return write_lease(id, '0|' .. now .. '|0|1', now)
  end
  local granted, t, life, closed, rest = string.match(lease, '^(%d+)|(%d+)|(%d+)|(%d)(.*)$')
  if closed ~= '0' then
    return
  end
  granted, t, life = tonumber(granted), tonumber(t), tonumber(life)
  local used_by = t + life
  write_lease(id, granted .. '|' .. t .. '|' .. life .. '|1', used_by)
  spent = math.min(spent, granted)
  local closed_at = t + math.min(age + math.floor(age / 499) + 1, life)
  for window, part, class in string.gmatch(rest, '|(%d+):(%d+):([^|]*)') do
    local c = counter(window, part, class)
    local later = math.ceil((used_by + c.window) / c.part)
    -- What is over was taken off with its slot.
    if later * c.part > now then
      subtract(c, later, granted)
      add(c, math.ceil((closed_at + c.window) / c.part), spent)
    end
  end
end

-- Closes `n` leases that stand in ARGV from `at` on: id, spent, age each.
local function close_all(at, n)
  for i = at, at + 3 * (n - 1), 3 do
    close(ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]))
  end
end

-- The marker as a table, nil where there is none.
local function read_marker()
  local text = redis.call('GET', KEYS[1])
  if not text then
    return nil
  end
  local identity, leap, since, fenced, epoch, seen =
    string.match(text, '^([^|]*)|(%d+)|(%d+)|([01])|([^|]*)|(%d+)$')
  if not identity then
    return { identity = false, leap = 0, since = 0, seen = 0 }
  end
  return {
    identity = identity, leap = tonumber(leap), since = tonumber(since),
    is_fenced = fenced == '1', epoch = epoch, seen = tonumber(seen),
  }
end

