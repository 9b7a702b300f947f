-- Follow a commit: append to the copy when nothing is missing between, else leave a tombstone.
-- KEYS: the copy. ARGV: epoch, last_seq, life of a copy in ms, life of a tombstone in ms, end of the header, messages...
-- Returns 1 when there is a copy afterwards that knows of this commit.
local key = KEYS[1]
local epoch, last = tonumber(ARGV[1]), tonumber(ARGV[2])
local top = redis.pcall('LINDEX', key, -1)  -- false: nothing there; an error: something else than a list
local kind, there, at
if type(top) == 'string' then
  kind, there, at = string.match(top, '^%["([HT])",(%d+),(%d+)')
  there, at = tonumber(there), tonumber(at)
end

-- A slow reader who asked the log before this commit must not put its older copy in place.
local function bury()
  if top then redis.call('DEL', key) end
  redis.call('RPUSH', key, '["T",' .. ARGV[1] .. ',' .. ARGV[2] .. ']')
  redis.call('PEXPIRE', key, ARGV[4])
  return 0
end

if not kind then return bury() end
if epoch < there or (epoch == there and last < at) then return kind == 'H' and 1 or 0 end
if kind == 'T' then
  if epoch == there and last == at then return 0 end
  return bury()
end
if epoch > there then return bury() end

local fresh = {}
for i = 6, #ARGV do
  local seq = tonumber(string.match(ARGV[i], '^%["%a",(%d+)'))
  if seq == at + 1 then
    fresh[#fresh + 1] = ARGV[i]
    at = seq
  elseif seq > at then
    return bury()
  end
end
if at ~= last then return bury() end

if #fresh > 0 then
  local cap = string.match(top, '^%["H",%d+,%d+,(%d+)')
  if not cap then return bury() end
  fresh[#fresh + 1] = '["H",' .. ARGV[1] .. ',' .. ARGV[2] .. ',' .. cap .. ',' .. ARGV[5]
  -- The old header is overwritten, not taken off: that first write is then one which a full server refuses, before
  -- anything has changed. A copy that cannot follow goes.
  local done = redis.pcall('LSET', key, -1, fresh[1])
  if type(done) == 'table' and done.err then
    redis.pcall('DEL', key)
    return done
  end
  for i = 2, #fresh, 1000 do
    redis.call('RPUSH', key, unpack(fresh, i, math.min(i + 999, #fresh)))
  end

  -- Cut the front now and then. The newest system message and the user message of the turn that is cut stay known.
  cap = tonumber(cap)
  local front = 0
  for _, element in ipairs(redis.call('LRANGE', key, 0, 1)) do
    local letter = string.sub(element, 3, 3)
    if letter == 'S' or letter == 'O' then front = front + 1 end
  end
  local gone = redis.call('LLEN', key) - 1 - front - cap
  if gone > math.max(16, math.floor(cap / 4)) then
    local system, opening
    for _, element in ipairs(redis.call('LRANGE', key, 0, front + gone - 1)) do
      local letter = string.sub(element, 3, 3)
      if letter == 'S' or letter == 's' then system = element end
      if letter == 'O' or letter == 'u' then opening = element end
    end
    redis.call('LTRIM', key, front + gone, -1)
    if opening and string.sub(redis.call('LINDEX', key, 0), 3, 3) ~= 'u' then
      redis.call('LPUSH', key, '["O"' .. string.sub(opening, 5))
    end
    if system then redis.call('LPUSH', key, '["S"' .. string.sub(system, 5)) end
  end
end
redis.call('PEXPIRE', key, ARGV[3])
return 1
