-- Hand out items and count that as a use.
-- ARGV: 1 to hand out none, ids.
-- Returns id, lines and content of those that are there.
local rows = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local item = fetch(id)
  if item then
    item.uses, item.used, item.turn = item.uses + 1, now, turn()
    save(id, item)
    if ARGV[3] ~= '1' then
      rows[#rows + 1] = id
      rows[#rows + 1] = written(item)
      rows[#rows + 1] = redis.call('HGET', contents, id)
    end
  end
end
settle(0)
return rows
