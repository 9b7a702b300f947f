-- Put a copy in place unless what is there, a copy or a tombstone, knows more.
-- KEYS: the copy. ARGV: epoch, last_seq, life of a copy in ms, latest time by this server's clock in ms, its elements...
-- Returns 1 when it was put in place.
local key = KEYS[1]
local epoch, last = tonumber(ARGV[1]), tonumber(ARGV[2])
-- A fill that a network held back could come when no tombstone remembers any more what has been erased meanwhile.
local now = redis.call('TIME')
if tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) > tonumber(ARGV[4]) then return 0 end
local top = redis.pcall('LINDEX', key, -1)  -- false: nothing there; an error: something else than a list
local length = 0
if type(top) == 'string' then
  local there, at = string.match(top, '^%["[HT]",(%d+),(%d+)')
  there, at = tonumber(there), tonumber(at)
  if there and (there > epoch or (there == epoch and at > last)) then return 0 end
  length = redis.call('LLEN', key)
elseif top then
  redis.call('DEL', key)
end
-- The new behind the old, then the old off: the first write is one which a full server refuses.
for i = 5, #ARGV, 1000 do
  redis.call('RPUSH', key, unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
redis.call('LTRIM', key, length, -1)
redis.call('PEXPIRE', key, ARGV[3])
return 1
