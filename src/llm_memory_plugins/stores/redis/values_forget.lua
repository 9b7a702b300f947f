-- Forget all copies of a user's; a tombstone refuses every other one until those on their way have arrived.
-- KEYS: the user's copies. ARGV: life of a tombstone in ms.
-- Returns 1 when there were any.
local key, had = KEYS[1], 0
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if redis.call('TYPE', key).ok == 'hash' then
  had = redis.call('HLEN', key) - redis.call('HEXISTS', key, '!') > 0 and 1 or 0
end
redis.call('UNLINK', key)
redis.call('HSET', key, '!', 'T;0;' .. string.format('%.0f', now + tonumber(ARGV[1])))
redis.call('PEXPIRE', key, ARGV[1])
return had
