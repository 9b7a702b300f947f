-- What the scripts of working memory share; this stands before each of them.
-- KEYS: items by id, contents by id, leaves by rank, leaves by end, counters, namespaces of the user in this slot.
-- ARGV: policy, half-life in us, then the script's own.
-- A leaf is an item with none below it. Only leaves are evicted or expire, so no chain is broken in the middle.
local items, contents, leaves, ends, meta, spaces = unpack(KEYS)
local policy, half_life = ARGV[1], tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- A server that evicts keys by itself may have taken some of these: what is left of such a namespace goes, too.
local there = redis.call('EXISTS', items, contents, leaves, ends, meta)
if there > 0 and there < 5 and (there > 1 or redis.call('EXISTS', meta) == 0) then
  redis.call('DEL', items, contents, leaves, ends, meta)
end

-- An item is lines: five of JSON as it came, nine numbers, and last the id of its parent, which may hold any character.
-- Whoever reads a whole namespace takes them as they are.
local LINES = string.rep('([^\n]*)\n', 14) .. '(.*)'
local FORM = string.rep('%s\n', 5) .. string.rep('%.0f\n', 9) .. '%s'
local changed, turns = false, nil

local function fetch(id)
  local lines = redis.call('HGET', items, id)
  if not lines then return nil end
  local item = {}
  item.importance, item.step, item.tags, item.status, item.conclusion, item.created, item.updated, item.used, item.ends,
    item.life, item.uses, item.children, item.seq, item.turn, item.parent = string.match(lines, LINES)
  for _, name in ipairs({'created', 'updated', 'used', 'ends', 'life', 'uses', 'children', 'seq', 'turn'}) do
    item[name] = tonumber(item[name])
  end
  return item
end

local function written(item)
  return string.format(FORM, item.importance, item.step, item.tags, item.status, item.conclusion, item.created,
    item.updated, item.used, item.ends, item.life, item.uses, item.children, item.seq, item.turn, item.parent)
end

-- What goes first; `rank` of working.py is the same in Python.
local function rank(item)
  if policy == 'lru' then return item.turn end
  if policy == 'lfu' then return math.min(item.uses, 65535) * 2^36 + item.turn end
  if policy == 'fifo' then return item.seq end
  if policy == 'ttl' then return item.ends end
  local lifted = math.max(tonumber(item.importance), 0.01) * (1 + math.log(1 + item.uses) / math.log(2))
  return math.log(lifted) / math.log(2) + item.used / half_life
end

local function save(id, item)
  changed = true
  redis.call('HSET', items, id, written(item))
  if item.children == 0 then redis.call('ZADD', leaves, rank(item), id) end
end

-- Add to the number of items below one.
local function descend(id, by)
  local item = fetch(id)
  item.children = item.children + by
  save(id, item)
  if item.children == 0 then
    redis.call('ZADD', ends, item.ends, id)
  elseif item.children == by then
    redis.call('ZREM', leaves, id)
    redis.call('ZREM', ends, id)
  end
end

-- Take out a leaf; why is counted.
local function remove(id, why)
  local item = fetch(id)
  changed = true
  redis.call('HDEL', items, id)
  redis.call('HDEL', contents, id)
  redis.call('ZREM', leaves, id)
  redis.call('ZREM', ends, id)
  redis.call('HINCRBY', meta, item.status, -1)
  if why then redis.call('HINCRBY', meta, why, 1) end
  if item.parent ~= '' then descend(item.parent, -1) end
end

local function turn()
  turns = (turns or tonumber(redis.call('HGET', meta, 'turn') or 0)) + 1
  return turns
end

-- After all changes. All keys end together, `least` ms from now or when they would have anyway: what was written to may
-- be a new key. Returns the ms that are left.
local function settle(least)
  if turns then redis.call('HSET', meta, 'turn', turns) end
  local life = math.max(redis.call('PTTL', meta), least)
  for i = 1, changed and 5 or 0 do redis.call('PEXPIRE', KEYS[i], life) end
  return life
end

-- What has come to its end goes, and then what had only waited for it.
local expired = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 1)
while expired[1] do
  remove(expired[1], 'ttl')
  expired = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 1)
end
if changed then settle(0) end  -- whatever becomes of the rest

-- Ranks are those of other rules until somebody with these comes.
local rules = policy == 'importance' and policy .. ' ' .. ARGV[2] or policy
local known = redis.call('HGET', meta, 'rules')
if known and known ~= rules then
  for _, id in ipairs(redis.call('ZRANGE', ends, 0, -1)) do redis.call('ZADD', leaves, rank(fetch(id)), id) end
  redis.call('HSET', meta, 'rules', rules)
end
