-- Put copies of a user's values in place, each unless what is there knows more.
-- KEYS: the user's copies. ARGV: w when they were just written, r when they were read; latest time by this server's clock
-- in ms; life of a tombstone in ms; life of all in ms; then of each value its field, version, life in ms, and the rest.
-- Returns how many were put in place.
local key, written, grace = KEYS[1], ARGV[1] == 'w', tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- What is known of a field: kind and version. An ended copy keeps older ones away for as long as a tombstone does.
local function known(entry)
  local kind, version, ends = string.match(entry or '', '^([ET]);(%d+);(%d+)')
  if not kind or tonumber(ends) + (kind == 'E' and grace or 0) <= now then return nil, 0 end
  return kind, tonumber(version)
end

-- What a network held back could come when no tombstone remembers any more what has been removed meanwhile.
if now > tonumber(ARGV[2]) then return 0 end
local there = redis.call('TYPE', key).ok
if there ~= 'hash' and there ~= 'none' then redis.call('DEL', key) end
if known(redis.call('HGET', key, '!')) then return 0 end

local done = 0
for i = 5, #ARGV, 4 do
  local field, version = ARGV[i], tonumber(ARGV[i + 1])
  local kind, newest = known(redis.call('HGET', key, field))
  if (kind ~= 'T' and newest <= version) or (kind == 'T' and written and newest < version) then
    local ends = string.format('%.0f', now + tonumber(ARGV[i + 2]))
    local set = redis.pcall('HSET', key, field, 'E;' .. ARGV[i + 1] .. ';' .. ends .. ';' .. ARGV[i + 3])
    if type(set) == 'table' and set.err then  -- a full server: the copy that cannot follow goes
      redis.pcall('HDEL', key, field)
      return set
    end
    done = done + 1
  end
end
redis.call('PEXPIRE', key, ARGV[4])

-- What has ended is found by chance, a little with every write, so that little of it stays.
local some = redis.call('HRANDFIELD', key, 8, 'WITHVALUES')
for i = 1, #some, 2 do
  if not known(some[i + 1]) then redis.call('HDEL', key, some[i]) end
end
return done
