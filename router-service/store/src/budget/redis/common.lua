-- What all calls for a tenant share. The same rules in Rust, with their reasons:
-- router-service/core/src/budget/tenant.rs. Times are milliseconds of this server's
-- clock; all numbers are below 2^53.
--
-- KEYS[1] is weir:b:{tenant}:t. The tenant's other keys have its prefix, so they are
-- in the same slot of a cluster. Several values in one are packed by `struct`:
-- numbers are doubles, eight bytes each.
--   t            line: who tells of another one has booked in data that is lost;
--                since: when that was found, or 0; of tokens <slot> = count, and
--                s = sum, first and last slot
--   a:<month>    v = spend, held, told, ceiling; <router>:<line> = what that router
--                has booked up and down. Spend is the sum of these
--   r:<id>       a request: '0' and HOLD, then a note; '1' and SWEPT; or '2', settled
--   x            holds, by the end of their lives
--   m, q         the outbox by name, and its order
--
-- ARGV: 1 the router, 2 the line that it knows ('' for none), 3 a name for a new
-- one, 4 HEAD: whether data was lost lately, the month, what the router has booked in
-- it on that line, up and down, and which shares it knows to be told.

local HEAD, ACCOUNT, BOOKED, HOLD, SWEPT = '>ddddd', '>dddd', '>dd', '>dddddddd', '>ddd'
local STALE, FENCED = 10, 11
local HOLD_LENGTH = 1 + 8 * 8
local REMEMBERED_MS = 604800000
-- Beyond thirteen months.
local ACCOUNT_MS = 34560000000
local WINDOW_MS, SLOT_MS = 60000, 1000
-- So long nothing is held for money, from when a loss was found: other routers tell
-- meanwhile what they have booked.
local FENCE_MS = 2000

local call, pack, unpacked, format = redis.call, struct.pack, struct.unpack, string.format
local prefix = string.sub(KEYS[1], 1, -2)
local router = ARGV[1]
local is_lost, month, known_plus, known_minus, known_told = unpacked(HEAD, ARGV[4])

local function time_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local now = time_ms()
local slot_now = math.ceil((now + WINDOW_MS) / SLOT_MS)
local found = call('HMGET', KEYS[1], 'line', 'since', 's', format('%d', slot_now))
local line, since = found[1], tonumber(found[2]) or 0
local sum, first, last = 0, 0, 0
if found[3] then
  sum, first, last = unpacked('>ddd', found[3])
end
local held_in = { [slot_now] = tonumber(found[4]) or 0 }

-- Whether the line that the router knows is another than this.
local function is_stale()
  local is_new = not line
  if is_new then
    line, since = ARGV[3], (ARGV[2] ~= '' or is_lost == 1) and now or 0
    call('HSET', KEYS[1], 'line', line, 'since', format('%d', since))
  end
  return ARGV[2] ~= '' and ARGV[2] ~= line
end

local function fenced_ms()
  return math.max(0, since + FENCE_MS - now)
end

-- Tokens ----------------------------------------------------------------------

-- All slots, the first one first, and those that are over.
local function slots()
  local all, left, over = call('HGETALL', KEYS[1]), {}, {}
  for i = 1, #all, 2 do
    local slot = tonumber(all[i])
    if slot and slot * SLOT_MS <= now then
      over[#over + 1] = all[i]
    elseif slot then
      left[#left + 1] = { slot, tonumber(all[i + 1]) }
    end
  end
  table.sort(left, function(a, b) return a[1] < b[1] end)
  return left, over
end

-- Counts anew, without what is over. Each tenant needs it once a second at the most.
local function recount()
  local left, over = slots()
  sum, first, last = 0, 0, 0
  for _, slot in ipairs(left) do
    sum = sum + slot[2]
  end
  if #left > 0 then
    first, last = left[1][1], left[#left][1]
  end
  if #over > 0 then
    call('HDEL', KEYS[1], unpack(over))
  end
  call('HSET', KEYS[1], 's', pack('>ddd', sum, first, last))
end

if first > 0 and first * SLOT_MS <= now then
  recount()
end

-- Makes a slot hold `to` instead of `from` of some request's tokens.
local function count(slot, from, to)
  if from == to then
    return
  end
  local name = format('%d', slot)
  local before = held_in[slot] or tonumber(call('HGET', KEYS[1], name)) or 0
  local after = math.max(0, before + to - from)
  held_in[slot] = after
  if after == 0 then
    call('HDEL', KEYS[1], name)
    return recount()
  end
  sum = sum - before + after
  first = first == 0 and slot or math.min(first, slot)
  last = math.max(last, slot)
  call('HSET', KEYS[1], name, format('%d', after), 's', pack('>ddd', sum, first, last))
end

-- What was taken becomes what was used.
local function correct(slot, taken, used)
  if slot * SLOT_MS > now then
    count(slot, taken, used)
  elseif used > taken then
    count(slot_now, 0, used - taken)
  end
end

-- Money -----------------------------------------------------------------------

local accounts = {}

local function account(its_month)
  local a = accounts[its_month]
  if a then
    return a
  end
  a = {
    key = prefix .. 'a:' .. format('%d', its_month), own = router .. ':' .. line,
    month = its_month, spend = 0, held = 0, told = 0, ceiling = -1, plus = 0, minus = 0,
    is_new = true, is_changed = false, is_booked = false,
  }
  local values = call('HMGET', a.key, 'v', a.own)
  if values[1] then
    a.spend, a.held, a.told, a.ceiling = unpacked(ACCOUNT, values[1])
    a.is_new = false
  end
  if values[2] then
    a.plus, a.minus = unpacked(BOOKED, values[2])
  end
  accounts[its_month] = a
  return a
end

local function book(a, micros)
  if micros > 0 then
    a.plus = a.plus + micros
  else
    a.minus = a.minus - micros
  end
  a.spend = a.spend + micros
  a.is_changed, a.is_booked = true, true
end

-- What the router knows that it has booked, and this data does not.
local function heal(a, plus, minus, told)
  if plus > a.plus then
    book(a, plus - a.plus)
  end
  if minus > a.minus then
    book(a, a.minus - minus)
  end
  local all = bit.bor(a.told, told)
  if all ~= a.told then
    a.told, a.is_changed, a.is_booked = all, true, true
  end
end

local function write_accounts()
  for _, a in pairs(accounts) do
    if a.is_changed then
      a.is_changed = false
      local value = pack(ACCOUNT, a.spend, a.held, a.told, a.ceiling)
      if a.is_booked then
        call('HSET', a.key, 'v', value, a.own, pack(BOOKED, a.plus, a.minus))
      else
        call('HSET', a.key, 'v', value)
      end
      if a.is_new then
        a.is_new = false
        call('PEXPIRE', a.key, ACCOUNT_MS)
      end
    end
  end
end

local function passes(a, more, ceiling, overage)
  return more > 0 and ceiling >= 0 and overage == 0 and a.spend + a.held + more > ceiling
end

-- The outbox --------------------------------------------------------------------

local function post(name, text)
  call('HSET', prefix .. 'm', name, text)
  call('ZADD', prefix .. 'q', now, name)
end

local function tell(a)
  if a.ceiling <= 0 then
    return
  end
  for n, percent in ipairs({ 50, 80, 90, 100 }) do
    local one = bit.lshift(1, n - 1)
    if bit.band(a.told, one) == 0 and a.spend >= math.ceil(a.ceiling * percent / 100) then
      a.told = bit.bor(a.told, one)
      a.is_changed, a.is_booked = true, true
      local name = format('reached:%04d-%02d:%03d', math.floor(a.month / 12), a.month % 12 + 1, percent)
      post(name, 'R' .. pack('>ddddd', now, a.month, percent, a.spend, a.ceiling))
    end
  end
end

-- Requests ----------------------------------------------------------------------

local function put_hold(id, hold, note)
  call('SET', prefix .. 'r:' .. id, '0' .. pack(HOLD, hold.amount, hold.expires, hold.tokens,
    hold.slot, hold.step, hold.micros, hold.used, hold.month) .. note)
  call('ZADD', prefix .. 'x', format('%d', hold.expires), id)
end

-- The hold and its note, where there is one; else what else there is.
local function request(id)
  local text = call('GET', prefix .. 'r:' .. id)
  if not text or string.sub(text, 1, 1) ~= '0' then
    return nil, text
  end
  local h = {}
  h.amount, h.expires, h.tokens, h.slot, h.step, h.micros, h.used, h.month =
    unpacked(HOLD, text, 2)
  return h, string.sub(text, HOLD_LENGTH + 1)
end

local function in_flight()
  return call('ZCOUNT', prefix .. 'x', '(' .. format('%d', now), '+inf')
end

local function sweep(most)
  local ids = call('ZRANGEBYSCORE', prefix .. 'x', '-inf', format('%d', now), 'LIMIT', 0, most)
  for _, id in ipairs(ids) do
    local hold, note = request(id)
    call('ZREM', prefix .. 'x', id)
    if hold then
      correct(hold.slot, hold.tokens, hold.used)
      call('SET', prefix .. 'r:' .. id, '1' .. pack(SWEPT, hold.micros, hold.used, hold.slot),
        'PX', REMEMBERED_MS)
      local a = account(hold.month)
      a.held = math.max(0, a.held - hold.amount)
      book(a, hold.micros)
      tell(a)
      post('swept:' .. id, 'S' .. pack('>ddd', now, hold.micros, hold.used) .. note)
    end
  end
  return #ids
end

-- Kind, a number that belongs to it, the line, where the tenant stands, then of each
-- month that this router has booked in: month, up, down, told.
local function answer(kind, number)
  write_accounts()
  local a = account(month)
  local all = {
    kind, number, line, math.max(0, a.spend), a.held, sum,
    first > 0 and first * SLOT_MS - now or 0, last > 0 and last * SLOT_MS - now or 0,
    in_flight(), call('EXISTS', prefix .. 'q'),
  }
  for _, one in pairs(accounts) do
    if one.is_booked then
      local at = #all
      all[at + 1], all[at + 2], all[at + 3], all[at + 4] = one.month, one.plus, one.minus, one.told
    end
  end
  return all
end

