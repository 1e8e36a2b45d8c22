"""What Valkey does at once, in Lua."""

from __future__ import annotations

__all__ = ["APPEND", "ASK_TO_CANCEL", "RELEASE", "RENEW"]

# KEYS: log, run, lease. ARGV: holder, first sequence, ttl ms, lease ms, floor, ended, mode, fence, number of events,
# the events, then names and values of the parts of the run that changed. The mode is `own`, or, where nobody may hold
# the run, `abandoned` or `claim`.
# An answer that was lost on its way makes the caller say the same again; that is found by comparing the first event.
APPEND = """
local newest = 0
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #last > 0 then newest = tonumber(string.match(last[1][1], '^(%d+)')) end
local first, count = tonumber(ARGV[2]), tonumber(ARGV[9])
if newest >= first then
  local there = redis.call('XRANGE', KEYS[1], ARGV[2] .. '-0', ARGV[2] .. '-0')
  if #there == 1 and there[1][2][2] == ARGV[10] then return 1 end
  return 0
end
if newest ~= first - 1 then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('HEXISTS', KEYS[2], 'ended') == 1 then return 0 end
local holder, fence = redis.call('GET', KEYS[3]), tonumber(redis.call('HGET', KEYS[2], 'fence') or '0')
if ARGV[7] == 'own' then
  if (holder and holder ~= ARGV[1]) or fence ~= tonumber(ARGV[8]) then return 0 end
else
  if holder or (ARGV[7] == 'claim' and tonumber(ARGV[8]) ~= fence + 1) then return 0 end
end
for i = 0, count - 1 do
  redis.call('XADD', KEYS[1], string.format('%.0f-0', first + i), 'e', ARGV[10 + i])
end
if tonumber(ARGV[5]) > 1 then redis.call('XTRIM', KEYS[1], 'MINID', ARGV[5] .. '-0') end
for i = 10 + count, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
if ARGV[6] == '1' then
  redis.call('HSET', KEYS[2], 'ended', '1')
  redis.call('DEL', KEYS[3])
elseif ARGV[7] ~= 'abandoned' then
  redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[4])
  if ARGV[7] == 'claim' then redis.call('HSET', KEYS[2], 'fence', ARGV[8]) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""

# KEYS: log, run, lease. ARGV: holder, ttl ms, lease ms, fence. Returns 0 where another one holds the run, 2 where
# somebody asked to cancel it, else 1.
RENEW = """
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('HEXISTS', KEYS[2], 'ended') == 1 then return 0 end
if tonumber(redis.call('HGET', KEYS[2], 'fence') or '0') ~= tonumber(ARGV[4]) then return 0 end
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1 + redis.call('HEXISTS', KEYS[2], 'cancelled')
"""

# KEYS: run, lease. ARGV: holder, fence.
RELEASE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if tonumber(redis.call('HGET', KEYS[1], 'fence') or '0') ~= tonumber(ARGV[2]) then return 0 end
return redis.call('DEL', KEYS[2])
"""

# KEYS: run, lease. Returns the holder; the mark is for who takes the run over when the holder is gone.
ASK_TO_CANCEL = """
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HEXISTS', KEYS[1], 'ended') == 1 then return false end
redis.call('HSET', KEYS[1], 'cancelled', '1')
return redis.call('GET', KEYS[2])
"""
