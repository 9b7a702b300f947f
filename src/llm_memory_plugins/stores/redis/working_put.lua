-- Write items, all or none, and make room for them.
-- ARGV: namespace, capacity, then of each item: id, 1 where it must be known, number of fields, names and values.
-- Returns {'ok', lines and content of each, evicted ids}, or why nothing was written: {'gone'}, {'full'}, and of the
-- n-th item {'parent', n}, {'cycle', n}.
local capacity = tonumber(ARGV[4])
local drafts, batch = {}, {}
local fresh, longest = 0, 0

-- Where an item will hang once the batch is written; '' for nowhere.
local function above(id)
  local draft = batch[id]
  if draft then return draft.parent or (draft.item and draft.item.parent) or '' end
  return fetch(id).parent
end

local function is_above(id, below)
  while below ~= '' do
    if below == id then return true end
    below = above(below)
  end
  return false
end

local at = 5
while at <= #ARGV do
  local id, fields = ARGV[at], tonumber(ARGV[at + 2])
  local draft = {id = id, item = fetch(id), given = {}}
  for i = at + 3, at + 2 + 2 * fields, 2 do draft.given[ARGV[i]] = ARGV[i + 1] end
  at = at + 3 + 2 * fields
  draft.parent = draft.given.parent
  if draft.item and draft.item.parent == draft.parent then draft.parent = nil end
  if ARGV[at - 2 - 2 * fields] == '1' and not draft.item then return {'gone'} end
  drafts[#drafts + 1] = draft
  if draft.parent then
    if not batch[draft.parent] and redis.call('HEXISTS', items, draft.parent) == 0 then return {'parent', #drafts} end
    if draft.parent == id or (draft.item and is_above(id, draft.parent)) then return {'cycle', #drafts} end
  end
  if not draft.item then fresh = fresh + 1 end
  batch[id] = draft
end

-- Can so many others go? All can but the batch and what is above it: for each of the batch, itself and its parent are at
-- most two of the leaves. Only where there are few leaves one has to look closely.
local function room(need)
  if redis.call('ZCARD', leaves) - 2 * #drafts >= need then return true end
  local kept, count = {}, 0
  for _, draft in ipairs(drafts) do
    local id = draft.id
    while id ~= '' and not kept[id] do
      kept[id], count = true, count + 1
      id = above(id)
    end
  end
  return count <= capacity
end

local need = redis.call('HLEN', items) + fresh - capacity
if need > 0 and not room(need) then return {'full'} end

for _, draft in ipairs(drafts) do
  local id, item = draft.id, fetch(draft.id)  -- again: earlier ones of the batch may hang on it now
  if item then
    redis.call('HINCRBY', meta, item.status, -1)
  else
    item = {parent = '', children = 0, uses = 0, created = now}
  end
  local old = item.parent
  for name, value in pairs(draft.given) do item[name] = value end
  item.updated, item.used, item.turn = now, now, turn()
  item.seq = item.seq or item.turn
  item.life = tonumber(item.life)
  item.ends = now + item.life
  longest = math.max(longest, item.life)
  redis.call('HINCRBY', meta, item.status, 1)
  if item.content then redis.call('HSET', contents, id, item.content) end
  save(id, item)
  if item.children == 0 then redis.call('ZADD', ends, item.ends, id) end
  if item.parent ~= old then
    if old ~= '' then descend(old, -1) end
    descend(item.parent, 1)
  end
end
if not known then redis.call('HSET', meta, 'rules', rules) end

-- Those of the batch that would go are set aside.
local evicted, aside = {}, {}
while redis.call('HLEN', items) > capacity do
  local id = redis.call('ZRANGE', leaves, 0, 0)[1]
  if batch[id] then
    redis.call('ZREM', leaves, id)
    aside[#aside + 1] = id
  else
    remove(id, 'capacity')
    evicted[#evicted + 1] = id
  end
end
for _, id in ipairs(aside) do redis.call('ZADD', leaves, rank(fetch(id)), id) end

-- The namespaces of a user are known as long as there is something in them.
local milliseconds = math.floor(now / 1000)
local life = settle(math.ceil(longest / 1000))
redis.call('ZREMRANGEBYSCORE', spaces, '-inf', milliseconds)
redis.call('ZADD', spaces, milliseconds + life, ARGV[3])
redis.call('PEXPIRE', spaces, math.max(redis.call('PTTL', spaces), life))

local rows = {}
for _, draft in ipairs(drafts) do
  rows[#rows + 1] = redis.call('HGET', items, draft.id)
  rows[#rows + 1] = redis.call('HGET', contents, draft.id)
end
return {'ok', rows, evicted}
