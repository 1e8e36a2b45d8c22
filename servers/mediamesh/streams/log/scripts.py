"""What Valkey does at once, in Lua.

All scripts about one stream have the KEYS meta, buf and readers, which are in one slot. In the hash ``stream:meta``,
``now`` and ``rules`` are packed numbers, of which one command brings all: most of the time of an append goes into
commands, not into Lua.
"""

from __future__ import annotations

__all__ = ["ADMIT", "APPEND", "DUE", "HASTEN", "OPEN", "PLACE", "READ", "SCRIPTS", "TAKE", "TELL"]

# Numbers of `now` and `rules`; see packing.py. Times are in milliseconds.
_NUMBERS = """
local kept = redis.call('HMGET', KEYS[1], 'now', 'rules')
if not kept[1] then return false end
local epoch, newest, items, bytes, oldest, safe, ended, closed = struct.unpack('>I8I8I8I8I8I8I8I8', kept[1])
local policy, max_items, max_bytes, deadline, resume, buffer_ttl, meta_ttl =
  struct.unpack('>I8I8I8I8I8I8I8', kept[2])
local waits = policy <= 1 or policy == 3
"""

_STATE = """
local changed = false

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function save()
  redis.call('HSET', KEYS[1], 'now',
    struct.pack('>I8I8I8I8I8I8I8I8', epoch, newest, items, bytes, oldest, safe, ended, closed))
end

local function place(reader, position, expires)
  local added = redis.call('HSET', KEYS[3], reader, struct.pack('>I8I8', position, expires))
  if reader ~= '' then redis.call('HDEL', KEYS[3], '') end
  return added
end

-- Finds the least position of all readers that count, and forgets those that count no more.
local function least()
  local time, found = clock(), nil
  local places = redis.call('HGETALL', KEYS[3])
  for i = 1, #places, 2 do
    local position, expires = struct.unpack('>I8I8', places[i + 1])
    if expires <= time then
      redis.call('HDEL', KEYS[3], places[i])
    elseif not found or position < found then
      found = position
    end
  end
  return found
end

-- Finds out how far all have read; readers told in ARGV, from an index on, are noted before.
local function consult(from)
  if from <= #ARGV then
    local expires = clock() + resume
    for i = from, #ARGV, 2 do place(ARGV[i], tonumber(ARGV[i + 1]), expires) end
    redis.call('PEXPIREAT', KEYS[3], deadline + meta_ttl)
  end
  local before = safe
  safe = least() or newest
  changed = changed or safe ~= before
end
"""

_ANSWER = """
local function room()
  if not waits or items == 0 then return max_items, max_bytes end
  local going = math.min(items, math.max(0, safe - oldest + 1))
  return math.max(0, max_items - items + going),
    math.max(0, max_bytes - bytes + math.floor(bytes * going / items))
end

local function answer(outcome, accepted, first_dropped, last_dropped, taken)
  local room_items, room_bytes = room()
  if room_items * 2 < max_items or room_bytes * 2 < max_bytes then
    consult(#ARGV + 1)
    room_items, room_bytes = room()
  end
  if changed then save() end
  return struct.pack('>I8I8I8I8I8I8I8I8I8I8', outcome, newest, oldest, accepted, first_dropped, last_dropped,
    room_items, room_bytes, epoch, taken)
end
"""

# ARGV: the stream as opened, digest of its token, `now`, `rules`.
OPEN = (
    """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'now', ARGV[3], 'rules', ARGV[4], 'head', ARGV[1], 'token', ARGV[2])
"""
    + _NUMBERS
    + _STATE
    + """
redis.call('PEXPIREAT', KEYS[1], deadline + meta_ttl)
if waits then
  place('', 0, clock() + resume)
  redis.call('PEXPIREAT', KEYS[3], deadline + meta_ttl)
end
return 1
"""
)

# ARGV: producer, epoch.
TAKE = (
    _NUMBERS
    + _STATE
    + _ANSWER
    + """
if ended > 0 then return answer(4, 0, 0, 0, 0) end
local mine = tonumber(ARGV[2])
if mine == 0 then mine = epoch + 1 end
local holder = redis.call('HGET', KEYS[1], 'producer') or ''
if mine < epoch or (mine == epoch and holder ~= '' and holder ~= ARGV[1]) then return answer(3, 0, 0, 0, 0) end
local taken = mine > epoch and 1 or 0
epoch, changed = mine, true
if holder ~= ARGV[1] then redis.call('HSET', KEYS[1], 'producer', ARGV[1]) end
return answer(1, 0, 0, 0, taken)
"""
)

# ARGV: epoch, first sequence, number of events, the end or nothing, the events, then ids and positions of readers.
# Events that go are counted one by one, and trimmed together when all is done.
APPEND = (
    _NUMBERS
    + """
local mine, first, count, finish = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

-- Most appends are the next events, and there is room: a sixth of the time would go into what follows.
if mine == epoch and ended == 0 and newest > 0 and count > 0 and first == newest + 1 and finish == '' then
  local size, share = bytes, waits and 2 or 1
  for i = 5, 4 + count do size = size + #ARGV[i] end
  if (items + count) * share <= max_items and size * share <= max_bytes and not (waits and safe >= oldest)
    and oldest > 0 then
    for i = 1, count do
      redis.call('XADD', KEYS[2], string.format('%.0f-0', newest + i), 'e', ARGV[4 + i])
    end
    newest, items = newest + count, items + count
    redis.call('HSET', KEYS[1], 'now',
      struct.pack('>I8I8I8I8I8I8I8I8', epoch, newest, items, size, oldest, safe, ended, closed))
    return struct.pack('>I8I8I8I8I8I8I8I8I8I8', 1, newest, oldest, count, 0, 0,
      waits and max_items - items or max_items, waits and max_bytes - size or max_bytes, epoch, 0)
  end
end
"""
    + _STATE
    + _ANSWER
    + """

local function id(sequence) return string.format('%.0f-0', sequence) end

if mine > 0 and mine < epoch then return answer(3, 0, 0, 0, 0) end
if ended > 0 then
  if mine == 0 then
    -- The broker says it again when the answer was lost; another broker that ends the stream too says something else.
    local last = redis.call('XRANGE', KEYS[2], id(newest), id(newest))[1]
    if count > 0 and last and last[2][2] == ARGV[4 + count] then return answer(1, count, 0, 0, 0) end
    return answer(4, 0, 0, 0, 0)
  end
  -- A sequence that an end took which is not the producer's own is not a repeated one.
  local repeated = math.max(0, math.min(count, newest - closed - first + 1))
  return answer(repeated == count and 1 or 4, repeated, 0, 0, 0)
end
if count > 0 and (first > newest + 1 or (mine == 0 and first ~= newest + 1)) then return answer(5, 0, 0, 0, 0) end
if mine > epoch then
  epoch, changed = mine, true
  redis.call('HDEL', KEYS[1], 'producer')
end

local readers = 5 + count
local consulted, trimmed = false, false
local ahead, at = nil, 0

local function evict(left)
  at = at + 1
  if not ahead or at >= #ahead then
    ahead, at = redis.call('XRANGE', KEYS[2], id(oldest), '+', 'COUNT', math.min(left, 16) + 1), 1
  end
  items, bytes = items - 1, bytes - #ahead[at][2][2]
  oldest = ahead[at + 1] and tonumber(string.match(ahead[at + 1][1], '^%d+')) or 0
  trimmed, changed = true, true
end

local function make_room(size, left)
  while items > 0 and (items >= max_items or bytes + size > max_bytes) do
    if waits and not consulted and (readers <= #ARGV or oldest > safe) then
      consulted = true
      consult(readers)
    end
    if waits and oldest > safe then return false end
    evict(left)
  end
  return true
end

local outcome, done, first_dropped, last_dropped = 1, 0, 0, 0
for i = 1, count do
  local sequence = first + i - 1
  if sequence > newest then
    local data, passes = ARGV[4 + i], i == count and finish ~= ''
    local fits = first_dropped == 0 and make_room(#data, count - i + 1)
    if not fits and not passes then
      if policy ~= 3 then
        outcome = 2
        break
      end
      if first_dropped == 0 then first_dropped = sequence end
      last_dropped = sequence
    else
      redis.call('XADD', KEYS[2], id(sequence), 'e', data)
      if newest == 0 then redis.call('PEXPIREAT', KEYS[2], deadline + meta_ttl) end
      items, bytes = items + 1, bytes + #data
      if oldest == 0 then oldest = sequence end
    end
    newest, changed = sequence, true
    if passes then
      ended, closed = clock(), mine == 0 and 1 or 0
      redis.call('HSET', KEYS[1], 'end', finish)
      redis.call('DEL', KEYS[3])
      redis.call('PEXPIRE', KEYS[1], meta_ttl)
      redis.call('PEXPIRE', KEYS[2], buffer_ttl)
    end
  end
  done = done + 1
end
if trimmed then redis.call('XTRIM', KEYS[2], 'MINID', '=', id(oldest)) end
return answer(outcome, done, first_dropped, last_dropped, 0)
"""
)

# ARGV: id, position and milliseconds of each reader; no milliseconds give the place up.
# A reader that begins behind what all have read holds back what the others would let go.
PLACE = (
    _NUMBERS
    + _STATE
    + """
if ended > 0 or not waits then return 0 end
local time, added = clock(), 0
for i = 1, #ARGV, 3 do
  local position, hold = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if hold > 0 then
    added = added + place(ARGV[i], position, time + hold)
    if position < safe then safe, changed = position, true end
  else
    redis.call('HDEL', KEYS[3], ARGV[i])
  end
end
if added > 0 then
  redis.call('PEXPIREAT', KEYS[3], deadline + meta_ttl)
  -- Those that left are forgotten when somebody asks; where the buffer never fills nobody does.
  local length = redis.call('HLEN', KEYS[3])
  if math.floor(length / 256) > math.floor((length - added) / 256) then least() end
end
if changed then save() end
return 1
"""
)

# ARGV: first id wanted, most events, about how many bytes. How many events those are is guessed from the mean.
READ = (
    _NUMBERS
    + _STATE
    + """
if newest > 0 and redis.call('EXISTS', KEYS[2]) == 0 then return false end
local found, start, left, size = {}, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
while left > 0 and items > 0 do
  local step = math.min(left, math.max(1, math.ceil(size * items / math.max(1, bytes))))
  local part = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', step)
  for i = 1, #part do
    if size <= 0 and #found > 0 then break end
    found[#found + 1], found[#found + 2] = part[i][1], part[i][2][2]
    left, size = left - 1, size - #part[i][2][2]
  end
  if #part < step or size <= 0 then break end
  start = '(' .. part[#part][1]
end
return {newest, oldest, ended, found}
"""
)

# The scripts about all streams have the KEYS streams:live and streams:news.

# ARGV: id, most streams, milliseconds it has to be created. Returns the time, or nothing when it may not be.
ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return false
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
return now
"""

# ARGV: id, milliseconds. Makes the stream due, for somebody to look after it should we not come to tell its end.
HASTEN = """
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
return redis.call('ZADD', KEYS[1], 'XX', 'LT', due, ARGV[1])
"""

# ARGV: id, most news, the stream, the replica. Whoever takes the stream from those that live tells that it ended.
TELL = """
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[2], '*', 'k', 'ended', 's', ARGV[3], 'r', ARGV[4])
return 1
"""

# ARGV: limit. Returns when it is, and the streams that are due.
DUE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {now, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])}
"""

SCRIPTS = (ADMIT, APPEND, DUE, HASTEN, OPEN, PLACE, READ, TAKE, TELL)
