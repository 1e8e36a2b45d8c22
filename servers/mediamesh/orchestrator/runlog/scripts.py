"""What Valkey does at once, in Lua."""

from __future__ import annotations

__all__ = ["APPEND", "RENEW"]

# KEYS: log, run, lease. ARGV: holder, first sequence, ttl ms, lease ms, floor, ended, abandoned, number of events,
# the events, then names and values of the parts of the run that changed.
# An answer that was lost on its way makes the caller say the same again; that is found by comparing the first event.
APPEND = """
local newest = 0
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #last > 0 then newest = tonumber(string.match(last[1][1], '^(%d+)')) end
local first, count = tonumber(ARGV[2]), tonumber(ARGV[8])
if newest >= first then
  local there = redis.call('XRANGE', KEYS[1], ARGV[2] .. '-0', ARGV[2] .. '-0')
  if #there == 1 and there[1][2][2] == ARGV[9] then return 1 end
  return 0
end
if newest ~= first - 1 then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('HEXISTS', KEYS[2], 'ended') == 1 then return 0 end
local holder = redis.call('GET', KEYS[3])
if ARGV[7] == '1' then
  if holder then return 0 end
elseif holder and holder ~= ARGV[1] then
  return 0
end
for i = 0, count - 1 do
  redis.call('XADD', KEYS[1], string.format('%.0f-0', first + i), 'e', ARGV[9 + i])
end
if tonumber(ARGV[5]) > 1 then redis.call('XTRIM', KEYS[1], 'MINID', ARGV[5] .. '-0') end
for i = 9 + count, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
if ARGV[6] == '1' then
  redis.call('HSET', KEYS[2], 'ended', '1')
  redis.call('DEL', KEYS[3])
elseif ARGV[7] == '0' then
  redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""

# KEYS: log, run, lease. ARGV: holder, ttl ms, lease ms.
RENEW = """
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('HEXISTS', KEYS[2], 'ended') == 1 then return 0 end
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
"""
