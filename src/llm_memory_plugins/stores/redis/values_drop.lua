-- Forget copies of a user's values up to a version; tombstones refuse late ones.
-- KEYS: the user's copies. ARGV: life of a tombstone in ms; life of all in ms; then of each value its field and version, 0
-- for any.
local key = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local ends = string.format('%.0f', now + tonumber(ARGV[1]))
local there = redis.call('TYPE', key).ok
if there ~= 'hash' and there ~= 'none' then redis.call('DEL', key) end
for i = 3, #ARGV, 2 do
  local field, version = ARGV[i], tonumber(ARGV[i + 1])
  local kind, newest = string.match(redis.call('HGET', key, field) or '', '^([ET]);(%d+);')
  newest = tonumber(newest or 0)
  if version == 0 or newest <= version or kind == 'T' then
    redis.call('HDEL', key, field)  -- first: a full server refuses what follows
    redis.call('HSET', key, field, 'T;' .. string.format('%.0f', math.max(version, newest)) .. ';' .. ends)
  end
end
redis.call('PEXPIRE', key, ARGV[2])
return 1
