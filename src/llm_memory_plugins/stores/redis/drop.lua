-- Forget a copy; while the tombstone lives nothing of that life of the session is put in place again.
-- KEYS: the copy. ARGV: epoch, the highest seq there can be, life of a tombstone in ms.
-- Returns 1 when a copy was there.
local key = KEYS[1]
local epoch, had = tonumber(ARGV[1]), 0
local top = redis.pcall('LINDEX', key, -1)  -- false: nothing there; an error: something else than a list
if type(top) == 'string' then
  local kind, there = string.match(top, '^%["([HT])",(%d+)')
  if kind then epoch = math.max(epoch, tonumber(there)) end
  if kind == 'H' then had = 1 end
end
if top then redis.call('DEL', key) end
redis.call('RPUSH', key, '["T",' .. string.format('%.0f', epoch) .. ',' .. ARGV[2] .. ']')
redis.call('PEXPIRE', key, ARGV[3])
return had
