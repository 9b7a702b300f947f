-- Take out an item, and with `cascade` all below it.
-- ARGV: id, 1 for `cascade`.
-- Returns {'ok', how many went}, or {'children'} when it stays for them.
local item = fetch(ARGV[3])
local going = {}
if item then
  if item.children > 0 and ARGV[4] ~= '1' then return {'children'} end
  going[1] = ARGV[3]
  if item.children > 0 then
    local below = {}
    for _, id in ipairs(redis.call('HKEYS', items)) do
      local parent = fetch(id).parent
      below[parent] = below[parent] or {}
      table.insert(below[parent], id)
    end
    local n = 1
    while going[n] do  -- grows as it is walked
      for _, id in ipairs(below[going[n]] or {}) do going[#going + 1] = id end
      n = n + 1
    end
  end
  for n = #going, 1, -1 do remove(going[n]) end
  settle(0)
end
return {'ok', #going}
